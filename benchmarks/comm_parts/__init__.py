"""The parts of `dtk bench comm`. `rank`, `calls` and `groups` run in the ranks; the rest needs no torch.

tables (operations and their factors), sizes -> arguments -> ranks (the processes) -> cases (what takes turns) -> rank
(blocks) -> records -> summary -> report. A new operation is one line in `tables` and one function in `calls`.
"""
