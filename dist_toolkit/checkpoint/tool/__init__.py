"""`dtk ckpt`: look at checkpoint directories, check, compare and thin them out. Nothing here imports torch.

`arguments.py` parses, `app.py` calls and prints; each command has a file with functions that return what they found.
"""
