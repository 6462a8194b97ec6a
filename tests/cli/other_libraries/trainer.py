"""Hugging Face's Trainer on a tiny BERT, as people write it: the strategy is nobody's business in here."""

import json

import torch
from transformers import BertConfig, BertForSequenceClassification, HfArgumentParser, Trainer, TrainingArguments


def main() -> None:
    (arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=64, max_position_embeddings=16, **size))
    samples = [{"input_ids": torch.randint(0, 64, (8,)), "labels": number % 2} for number in range(64)]
    computed = set()
    model.bert.encoder.layer[0].attention.self.query.register_forward_hook(
        lambda module, args, output: computed.add(str(output.dtype))
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=samples)
    result = trainer.train()
    report(trainer.model_wrapped, computed, result.global_step, arguments.world_size)


def report(model: torch.nn.Module, computed: set[str], steps: int, ranks: int) -> None:
    """What is in force, for the test that runs this."""
    own = getattr(model, "module", model)
    seen = {
        "model": [kind.__name__ for kind in type(model).__mro__],
        "parameters": sorted({type(parameter).__name__ for parameter in own.parameters()}),
        "sharded units": sum("FSDPModule" in [k.__name__ for k in type(m).__mro__] for m in own.modules()),
        "stage": model.zero_optimization_stage() if hasattr(model, "zero_optimization_stage") else None,
        "computed in": sorted(computed),
        "steps": steps,
        "ranks": ranks,
    }
    print("@" + json.dumps(seen))


if __name__ == "__main__":
    main()
