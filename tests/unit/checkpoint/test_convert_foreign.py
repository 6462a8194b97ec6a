"""`dtk ckpt convert` from torch.save, DCP and DeepSpeed: what is found or refused; no pickle is executed."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.manifest import decode
from dist_toolkit.checkpoint.tool.foreign import command, write
from dist_toolkit.checkpoint.tool.foreign.detect import detect
from dist_toolkit.storage import LocalStorage
from tests.unit.checkpoint.made_up import model as made_up_model
from tests.unit.checkpoint.made_up import write as write_ours

pytestmark = [
    pytest.mark.usefixtures("same_variables"),
    pytest.mark.filterwarnings("ignore:.*torch.distributed is:UserWarning"),  # torch says what was asked for
]


class Harm:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def trained(model, optimizer=None, steps=2):
    optimizer = optimizer or torch.optim.Adam([p for p in model.parameters() if p.requires_grad])
    for _ in range(steps):
        model(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def manifest_of(root: Path, step: int):
    return decode((root / f"step-{step:08}" / MANIFEST).read_bytes(), "manifest")


def groups_of(manifest):
    return [group["params"] for group in manifest.values["engine"]["optim_groups"]["groups"]]


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
FORMS = {
    "keys of a trainer": lambda m, o: {"model": m, "optimizer": o, "epoch": 3},
    "keys with state_dict": lambda m, o: {"model_state_dict": m, "optimizer_state_dict": o, "loss": torch.ones(())},
    "of DDP": lambda m, o: {"model": {f"module.{name}": value for name, value in m.items()}, "optimizer": o},
    "compiled": lambda m, o: {"net": {f"_orig_mod.{name}": value for name, value in m.items()}, "optim": o},
    "one inside": lambda m, o: {"state": {"state_dict": OrderedDict(m), "optimizer_states": [o]}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_in_their_usual_forms(tmp_path, ckpt, form, zipped):
    model, optimizer = trained(net())
    content = FORMS[form](model.state_dict(), optimizer.state_dict())
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    answer = ckpt("convert", tmp_path / "a.pt", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["step"], answer.json["weights"], answer.json["optimizer"]) == (2, 9, True)
    assert groups_of(manifest_of(tmp_path / "out", 2)) == [NAMES]
    assert ckpt("verify", tmp_path / "out").code == 0
    assert ckpt("convert", tmp_path / "out", tmp_path / "back.safetensors").code == 0


def test_what_is_said_of_a_conversion(tmp_path, ckpt, golden):
    torch.manual_seed(0)
    model, optimizer = trained(net())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sched": schedule.state_dict()}
    torch.save({**kept, "epoch": 3, "rng": torch.get_rng_state()}, tmp_path / "a.pt")
    words = ["--step", 9, "--scheduler-key", "sched"]
    answer = ckpt("convert", tmp_path / "a.pt", tmp_path / "out", *words)
    golden("checkpoint/convert-from.txt", answer.out)
    values = manifest_of(tmp_path / "out", 9).values
    assert values["schedule"]["step_size"] == 5
    assert values["strategy"] == {"name": "converted"}
    torch.save(model.state_dict(), tmp_path / "b.bin")
    assert "pass --step" in ckpt("convert", tmp_path / "b.bin", tmp_path / "out").err
    assert "no optimizer state" in ckpt("convert", tmp_path / "b.bin", tmp_path / "out", "--step", 0).out
    assert manifest_of(tmp_path / "out", 0).values["engine"]["optim_groups"] is None


def test_a_step_that_is_there_is_not_replaced(tmp_path, ckpt):
    torch.save(net().state_dict(), tmp_path / "a.pt")
    assert ckpt("convert", tmp_path / "a.pt", tmp_path / "out", "--step", 1).code == 0
    before = (tmp_path / "out" / "step-00000001" / MANIFEST).read_bytes()
    answer = ckpt("convert", tmp_path / "a.pt", tmp_path / "out", "--step", 1)
    assert (answer.code, "step-00000001 exists" in answer.err) == (2, True)
    assert (tmp_path / "out" / "step-00000001" / MANIFEST).read_bytes() == before
    assert ckpt("convert", tmp_path / "a.pt", tmp_path / "out", "--step", 2).code == 0
    assert ckpt("convert", tmp_path / "a.pt", tmp_path / "x.safetensors", "--step", 2).code == 2


def test_an_optimizer_whose_order_is_not_certain_is_refused(tmp_path, ckpt):
    class Shared(nn.Module):
        """Two names for one weight, and a buffer of floats."""

        def __init__(self, buffer):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            if buffer:
                self.register_buffer("table", torch.ones(3))

        def forward(self, x):
            return self.b(self.a(x))

    def convert(model, optimizer, *words):
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        return ckpt("convert", tmp_path / "a.pt", out, *words)

    assert convert(*trained(Shared(buffer=False))).code == 0  # the tie is seen in the file
    answer = convert(*trained(Shared(buffer=True)))
    assert (answer.code, "of 3 parameters by number, but 4" in answer.err) == (2, True)
    assert "--param-names" in answer.err
    frozen = net()
    frozen[0].requires_grad_(False)
    answer = convert(*trained(frozen))
    assert (answer.code, "of 4 parameters by number, but 6" in answer.err) == (2, True)
    model = net()
    groups = [{"params": model[2].parameters()}, {"params": [*model[0].parameters(), *model[1].parameters()]}]
    answer = convert(*trained(model, torch.optim.Adam(groups)))
    assert (answer.code, "in 2 groups" in answer.err) == (2, True)
    model = net()
    backwards = torch.optim.Adam(list(model.parameters())[::-1])
    answer = convert(*trained(model, backwards))
    assert (answer.code, "not in the order" in answer.err) == (2, True)
    right, wrong, short = NAMES[::-1], NAMES, NAMES[1:]
    for names, code in ((right, 0), (wrong, 2), (short, 2), ([*short, "9.weight"], 2)):
        (tmp_path / "names.json").write_text(json.dumps(names))
        answer = convert(model, backwards, "--param-names", tmp_path / "names.json")
        assert answer.code == code, answer.err


def test_names_written_by_torch_are_used(tmp_path, ckpt):
    model = net()
    model, optimizer = trained(model, torch.optim.Adam(list(model.named_parameters())[::-1]))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    assert ckpt("convert", tmp_path / "a.pt", tmp_path / "out").code == 0
    assert groups_of(manifest_of(tmp_path / "out", 2)) == [NAMES[::-1]]


@pytest.mark.parametrize(
    ("content", "said"),
    [({"a": net().state_dict(), "b": 3}, "--model-key: the file holds a, b"),
     ({"model": net().state_dict(), "state_dict": net().state_dict()}, "in model and in state_dict"),
     ({"model": net().state_dict(), "optimizer": [{}, {}]}, "of 2 optimizers"),
     ({"model": net().state_dict(), "optimizer": {"lr": 1}}, "no param_groups"),
     ([1, 2], "holds a list"),
     ({"model": {"w": torch.ones(2).to_sparse()}}, "only dense tensors"),
     ({"model": {"w": torch.ones(2, dtype=torch.complex128)}}, "complex128")],
)  # fmt: skip
def test_files_that_do_not_say_enough_are_refused(tmp_path, ckpt, content, said):
    torch.save(content, tmp_path / "a.pt")
    answer = ckpt("convert", tmp_path / "a.pt", tmp_path / "out", "--step", 1)
    assert (answer.code, said in answer.err, answer.err.count("\n")) == (2, True, 1), answer.err
    assert not (tmp_path / "out").exists()


def test_a_path_that_nothing_is_known_of(tmp_path, ckpt):
    torch.save(net().state_dict(), tmp_path / "weights")
    assert "pass --from torch" in ckpt("convert", tmp_path / "weights", tmp_path / "out").err
    assert ckpt("convert", tmp_path / "weights", tmp_path / "out", "--from", "torch", "--step", 1).code == 0
    assert "does not exist" in ckpt("convert", tmp_path / "nothing", tmp_path / "new").err
    assert "is a directory" in ckpt("convert", tmp_path / "out", tmp_path / "new", "--from", "torch").err
    assert "holds no .metadata" in ckpt("convert", tmp_path / "out", tmp_path / "new", "--from", "dcp").err
    assert "no save of DeepSpeed" in ckpt("convert", tmp_path / "out", tmp_path / "new", "--from", "deepspeed").err


def test_keys_say_where_things_are(tmp_path, ckpt):
    model, optimizer = trained(net())
    weights = model.state_dict()
    torch.save({"nets": {"gen": weights, "disc": weights}, "opts": {"gen": optimizer.state_dict()}}, tmp_path / "a.pt")
    words = ["--model-key", "nets.gen"]
    assert ckpt("convert", tmp_path / "a.pt", tmp_path / "out", *words, "--step", 1).code == 0
    assert "no such key" in ckpt("convert", tmp_path / "a.pt", tmp_path / "out", "--model-key", "nets.x").err
    torch.save({"w": weights, "o": optimizer.state_dict()}, tmp_path / "a.pt")
    words = ["--model-key", "w", "--optimizer-key", "o"]
    assert ckpt("convert", tmp_path / "a.pt", tmp_path / "out", *words, "--json").json["optimizer"]


def test_a_pickle_is_never_executed(tmp_path, ckpt):
    """Neither in a file of torch.save, nor in the metadata or the data of DCP, nor in DeepSpeed's files."""
    harm = Harm(tmp_path / "harmed")
    torch.save({"model": net().state_dict(), "args": harm}, tmp_path / "a.pt")
    torch.save(net(), tmp_path / "module.pt")
    dcp.save({"model": net().state_dict(), "step": 1}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    metadata = tmp_path / "dcp" / ".metadata"
    good = metadata.read_bytes()
    deepspeed = tmp_path / "zero" / "global_step1"
    deepspeed.mkdir(parents=True)
    (tmp_path / "zero" / "latest").write_text("global_step1")
    torch.save({"module": net().state_dict(), "optimizer": harm}, deepspeed / "mp_rank_00_model_states.pt")
    metadata.write_bytes(pickle.dumps(harm))
    for source, needs in (("a.pt", "mkdir"), ("module.pt", "Sequential"), ("dcp", "mkdir"), ("zero", "mkdir")):
        answer = ckpt("convert", tmp_path / source, tmp_path / "out", "--step", 1)
        assert (answer.code, needs in answer.err) == (2, True), answer.err
    assert not (tmp_path / "harmed").exists()
    metadata.write_bytes(good)
    assert ckpt("convert", tmp_path / "dcp", tmp_path / "out", "--step", 1).code == 0


@pytest.mark.parametrize("damage", ["cut", "missing", "metadata", "outside"])
def test_damage_leaves_nothing(tmp_path, ckpt, damage):
    dcp.save({"model": net().state_dict()}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    (data,) = (tmp_path / "dcp").glob("*.distcp")
    metadata = tmp_path / "dcp" / ".metadata"
    if damage == "cut":
        os.truncate(data, data.stat().st_size - 700)
    elif damage == "missing":
        data.unlink()
    elif damage == "metadata":
        metadata.write_bytes(metadata.read_bytes()[:-20])
    else:
        metadata.write_bytes(metadata.read_bytes().replace(data.name.encode(), b"../" + data.name.encode()[3:]))
    answer = ckpt("convert", tmp_path / "dcp", tmp_path / "out", "--step", 1)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert not list(tmp_path.glob("out/*"))


def test_pieces_are_written_a_batch_at_a_time(tmp_path, ckpt):
    """Files of at most so many bytes, put together to the same checkpoint."""
    torch.save(net().state_dict(), tmp_path / "a.pt")
    made = command.read(command.Options(str(tmp_path / "a.pt"), "torch", "", step=1))
    for name, batch in (("one", 1 << 30), ("many", 40)):
        write.write(LocalStorage(tmp_path / name), made, lambda what: None, lambda count: None, batch)
    assert len(manifest_of(tmp_path / "many", 1).files) > 3
    assert ckpt("verify", tmp_path / "many").code == 0
    assert ckpt("diff", tmp_path / "one", tmp_path / "many").code == 0


def test_whose_checkpoint_a_path_is(tmp_path):
    write_ours(tmp_path / "ours", 1, [made_up_model()])
    (tmp_path / "ours" / "latest").write_text("step-00000001")
    (tmp_path / "zero" / "global_step3").mkdir(parents=True)
    (tmp_path / "zero" / "latest").write_text("global_step3\n")
    assert detect(str(tmp_path / "zero")) is None  # no file of DeepSpeed's is in it
    (tmp_path / "zero" / "global_step3" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").touch()
    (tmp_path / "weights.pth").touch()
    paths = ["ours", "ours/step-00000001", "zero", "zero/global_step3", "weights.pth", "none"]
    assert [detect(str(tmp_path / path)) for path in paths] == [None, None, "deepspeed", "deepspeed", "torch", None]


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"garbage" * 100, "Unsupported operand"), (b"", "EOFError"), (b"PK\x03\x04" + b"x" * 100, "central directory")],
    ids=["garbage", "empty", "zip"],
)
def test_a_file_that_torch_did_not_write_is_refused_without_torchs_advice(tmp_path, ckpt, data, said):
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    answer = ckpt("convert", path, tmp_path / "out")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "model.pt cannot be read as a file of torch.save: " in answer.err
    assert said in answer.err
    assert "weights_only" not in answer.err
    assert not (tmp_path / "out").exists()


def test_deepspeed_saves_that_are_not_whole_are_refused(tmp_path, ckpt):
    folder = tmp_path / "zero" / "global_step3"
    folder.mkdir(parents=True)
    held = {"optimizer_state_dict": {"zero_stage": 2, "partition_count": [2, 2]}}
    torch.save(held, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    answer = ckpt("convert", folder, tmp_path / "out")
    assert (answer.code, "but 2 ranks saved" in answer.err) == (2, True)
    torch.save(held, folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    model = {"module": {"w": torch.ones(3)}, "param_shapes": [{"w": torch.Size([3])}], "buffer_names": []}
    torch.save(model, folder / "mp_rank_00_model_states.pt")
    answer = ckpt("convert", folder, tmp_path / "out")
    assert (answer.code, "not laid out as DeepSpeed" in answer.err) == (2, True)
    (folder / "mp_rank_01_model_states.pt").touch()
    answer = ckpt("convert", folder, tmp_path / "out")
    assert (answer.code, "parallelism" in answer.err) == (2, True)
