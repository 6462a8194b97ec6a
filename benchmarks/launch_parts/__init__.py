"""The parts of `dtk bench launch`: answers (a command line that only prints), starts (to the first line), idle."""
