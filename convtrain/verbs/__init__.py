"""The verbs of ``python -m convtrain``, each in a file.

A verb has ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit status. Its
docstring is its help; the first line is its entry in the list of verbs. It imports torch only
inside ``run``.
"""
