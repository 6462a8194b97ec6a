"""The parts of `dtk bench overhead`. `rank`, `work` and `loops` run in the ranks; the rest needs no torch.

tables (what can be compared) -> arguments -> ranks (the processes) -> rank (blocks that take turns) -> records ->
summary -> report. A new loop is one line in `tables` and one class in `loops`.
"""
