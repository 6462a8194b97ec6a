"""The parts of `dtk bench verdict`: scenarios (what goes wrong) -> runs (do it, ask dtk and torchrun) -> report."""
