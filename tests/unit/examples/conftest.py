"""The folder of the examples is where their scripts find `shared`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))
