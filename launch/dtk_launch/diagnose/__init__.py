"""What went wrong in a run: who failed first (culprit), who is stuck (hang), and the evidence for it."""
