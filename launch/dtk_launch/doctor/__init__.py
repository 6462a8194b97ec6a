"""`dtk doctor`: what of this machine, or of the nodes of an allocation, will break a run."""
