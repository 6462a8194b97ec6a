"""The parts of `dtk bench advise`. `probe` runs in the ranks, around the user's script; the rest needs no torch.

arguments -> candidates (what is tried, one after the other) -> records -> advice (pure: which to take, and why) ->
report.
"""
