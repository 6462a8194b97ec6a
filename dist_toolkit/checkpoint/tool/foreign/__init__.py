"""Checkpoints of other programs, into format 1: `torch_file.py`, `dcp.py` and `deepspeed.py` read, `write.py` writes.

Whatever reads a tensor imports torch; `detect.py` and `pickles.py`, which know names of files and of classes, do not.
"""
