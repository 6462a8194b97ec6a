"""Small runs of the Trainer's script with exact checkpoints; test_hf.py has the others."""

from tests.examples.running import Case

LOSS = r"loss (\d\.\d{3}) a byte after 40 steps"
SMALL = (
    "--steps", "40", "--save-every", "10", "--files", "4", "--batch-size", "4", "--width", "32", "--lr", "1e-2",
)  # fmt: skip

CASES = [Case("hf_trainer_exact.py", SMALL, LOSS, at_most=4.0, modes=("ddp", "alone"))]
