"""The parts of `dtk bench throughput`. `rank` and `models` run in the ranks; the rest needs no torch.

tables (what can be compared) -> arguments -> modes (the processes) -> rounds (who runs when) -> records -> summary
-> report. A new model or strategy is one line in `tables` and one function in `models`.
"""
