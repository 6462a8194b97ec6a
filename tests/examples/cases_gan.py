"""Small runs of the generative adversarial networks: how far made images are from held-out ones."""

from tests.examples.running import Case

DISTANCE = r"Fréchet distance (\d+\.\d\d) after \d+ steps"
SMALL = ("--epochs", "2", "--width", "8", "--samples", "128", "--grid-every", "20", "--save-every", "10")

CASES = [
    Case("gan_dcgan.py", (*SMALL, "--lr", "0.002"), DISTANCE, at_most=15.0),  # 28.6 before training
    Case("gan_style.py", (*SMALL, "--side", "8", "--lr", "0.005"), DISTANCE, at_most=120.0),  # 200 before training
]
