"""Write a declared network as a plain PyTorch file, in either style.

:mod:`convtrain.use.code.write` tells how; each file does one step of it.
"""
