"""The parts of `dtk bench compare`: results (read and match two runs) -> changes -> gate (both pure) -> terminal."""
