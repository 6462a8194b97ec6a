"""Small runs of the road in four steps and of the image classifier."""

from tests.examples.running import Case

ACCURACY = r"test accuracy ([01]\.\d{3})"
FOUR = ("--epochs", "12")
SMALL = ("--limit", "640", "--side", "8", "--epochs", "1", "--save-every", "3", "--sync-batchnorm", "--accumulate", "2")

CASES = [
    Case("road_1_one_device.py", FOUR, ACCURACY, 0.93, modes=("alone",), file="runs/road_1_one_device.pt"),
    Case("road_2_data_parallel.py", FOUR, ACCURACY, 0.93, modes=("alone",), file="runs/road_2_data_parallel.pt"),
    Case("road_3_ddp.py", FOUR, ACCURACY, 0.93, modes=("ddp",), file="runs/road_3_ddp.pt"),
    Case("road_4_dist_toolkit.py", FOUR, ACCURACY, 0.93),
    Case("vision_classifier.py", SMALL, rf"resnet18: {ACCURACY} after \d+ steps", 0.3),
]
