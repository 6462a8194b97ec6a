"""What the benchmarks share. `machine`, `channel` and `statistics` need no torch; nothing here knows what is measured.

arguments (the options that all take) -> driver (measure, record, report, exit code) -> processes (what is started and
ended) -> records -> statistics -> markdown.
"""
