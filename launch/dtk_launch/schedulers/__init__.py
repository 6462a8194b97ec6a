"""Schedulers that `dtk submit` can hand a job to: one file each, behind base.Scheduler."""
