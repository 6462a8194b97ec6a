"""What the benchmarks share. Only `group`, which runs in ranks, needs torch; nothing here knows what is measured.

arguments (the options that all take) -> driver (measure, record, report, exit code) -> ranks, processes
(what is started and ended) -> records -> statistics -> markdown. `nodes`: ranks on several nodes of a SLURM job;
`elsewhere`, `needs`: the arguments of a benchmark that is to become a job.
"""
