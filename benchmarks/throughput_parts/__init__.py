"""The parts of `dtk bench throughput`.

In the driver, without torch: tables (what can be compared) -> arguments, cases (who is measured on what) -> course ->
modes (the processes), rounds (who runs when), fitting (the largest batch) -> records -> summary -> report, of
headlines, grids, pictures and prose.
In the ranks: rank -> tasks, models (the work), training (the loop), spans and waits (the parts of a step), memory.
A new model or strategy is one line in `tables`, and for a model one function in `models`.
"""
