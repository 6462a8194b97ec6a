"""The desync guard: which rank entered which collective, kept in memory, compared when one waits long.

`recorder.py` is what every collective pays for; `report.py` what a rank tells the others; `verdict.py` decides;
`monitor.py` is the thread that asks and delivers. docs/decisions/0009-desync-guard.md says why it is like this.
"""
