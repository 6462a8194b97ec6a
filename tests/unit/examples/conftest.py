"""The folder of the examples is importable, as it is for the scripts in it."""

import sys
from pathlib import Path

EXAMPLES = str(Path(__file__).parents[3] / "examples")
if EXAMPLES not in sys.path:
    sys.path.insert(0, EXAMPLES)
