"""Small runs of the language models, from random weights and from trained ones."""

from tests.examples.running import Case

TEXT = (
    "--files", "10", "--vocabulary", "512", "--layers", "1", "--width", "64", "--tokens", "32", "--save-every", "10",
)  # fmt: skip
TRAINED = ("--save-every", "5", "--tokens", "24", "--global-batch-size", "16")

# finetune_translation.py: so few steps translate no text whole; its number only shows that it was counted
CASES = [
    Case(
        "language_gpt2.py", (*TEXT, "--epochs", "1", "--lr", "0.005"),
        r"perplexity (\d+\.\d) a token after \d+ steps", at_most=250.0,
    ),
    Case(
        "language_mlm.py", (*TEXT, "--epochs", "1", "--lr", "0.005"),
        r"bert: perplexity (\d+\.\d) a masked token, next segment 0\.\d{3} right after \d+ steps", at_most=300.0,
    ),
    Case(
        "language_mlm.py", (*TEXT, "--model", "roberta", "--epochs", "1", "--lr", "0.005"),
        r"roberta: perplexity (\d+\.\d) a masked token after \d+ steps", at_most=300.0,
    ),
    Case(
        "finetune_classification.py",
        (*TRAINED, "--packages", "2", "--samples", "160", "--held-out", "60", "--epochs", "1"),
        r"test accuracy ([01]\.\d{4}) after \d+ steps", at_least=0.7,
    ),
    Case(
        "finetune_ner.py", (*TRAINED, "--samples", "240", "--held-out", "60", "--words", "16", "--epochs", "1"),
        r"F1 of entities ([01]\.\d{4}) after \d+ steps", at_least=0.3,
    ),
    Case(
        "finetune_translation.py",
        ("--numbers", "200", "--layers", "1", "--epochs", "15", "--global-batch-size", "16", "--save-every", "20"),
        r"[01]\.\d{4} of unseen texts translated exactly, BLEU (\d+\.\d\d), after \d+ steps",
    ),
]  # fmt: skip
