"""The parts of `dtk bench compare`: results (read two runs) -> changes (pure) -> terminal."""
