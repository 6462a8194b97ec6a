"""What attach() says to each Trainer that it cannot serve, as JSON by name."""

import json
import tempfile

import torch
from transformers import Trainer, TrainingArguments

from dist_toolkit.errors import ConfigError
from dist_toolkit.integrations.transformers import attach


def trainer_of(**given):
    arguments = TrainingArguments(tempfile.gettempdir(), use_cpu=True, report_to=[], **given)
    return Trainer(torch.nn.Linear(2, 1), arguments, train_dataset=[1])


def refusal(call, *given, **more):
    try:
        call(*given, **more)
    except ConfigError as error:
        return str(error)
    return None


class Old(Trainer):
    _run_epoch = property()  # raises AttributeError, as where there is none


attached = trainer_of()
attach(attached)
said = {
    "save_only_model": refusal(attach, trainer_of(save_only_model=True)),
    "auto_find_batch_size": refusal(attach, trainer_of(auto_find_batch_size=True)),
    "ignore_data_skip": refusal(attach, trainer_of(ignore_data_skip=True)),
    "enable_jit_checkpoint": refusal(attach, trainer_of(enable_jit_checkpoint=True)),
    "Linear": refusal(attach, torch.nn.Linear(1, 1)),
    "_run_epoch": refusal(attach, Old(torch.nn.Linear(2, 1), attached.args)),
    "once": refusal(attach, attached),
    "checkpoint-3": refusal(attached.train, resume_from_checkpoint="out/checkpoint-3"),
    "hyperparameter_search": refusal(attached.hyperparameter_search),
}
print("@" + json.dumps(said))
