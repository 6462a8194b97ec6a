"""The parts of `dtk bench checkpoint`. `rank`, `state` and `methods` run in the ranks; the rest needs no torch.

tables (what can be compared) -> arguments -> ranks (how they are started) -> rank (methods that take turns) -> records
-> summary -> report. A new method is one line in `tables` and one class in `methods`.
"""
