"""What can be typed after ``python -m convtrain``: each file is a verb.

A verb has ``add_arguments(parser)`` and ``run(arguments)``, which returns the exit status. Its
docstring is its help, and the first line is its entry in the list of verbs. It imports torch only
inside ``run``.
"""
