"""`dtk ckpt convert --to hf`: folders that transformers itself loads, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from dist_toolkit.checkpoint.tool.hf.shards import parse_size, split
from dist_toolkit.checkpoint.tool.outcome import UsageError
from tests.unit.checkpoint.made_up import cut, whole, write

GPT2 = {"vocab_size": 50, "n_positions": 8, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0,
        "eos_token_id": 0}  # fmt: skip
BERT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 16}  # fmt: skip


@pytest.fixture
def transformers(same_variables):
    """The package, without progress bars, which start a thread."""
    package = pytest.importorskip("transformers")
    package.utils.logging.disable_progress_bar()
    return package


@pytest.fixture
def checkpoint(tmp_path, ckpt):
    """Make a checkpoint of a module, and save its config to a folder; gives both paths."""

    def make(module, prefix=""):
        torch.save({f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}, tmp_path / "model.pt")
        assert ckpt("convert", tmp_path / "model.pt", tmp_path / "run", "--step", 1).code == 0
        module.config.save_pretrained(tmp_path / "config")
        (tmp_path / "config" / "vocab.txt").write_text("[PAD]\n")
        return tmp_path / "run", tmp_path / "config"

    return make


def assert_loads(auto, folder, module, dtype=torch.float32):
    loaded, about = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(about.values()), about
    mine, theirs = module.state_dict(), loaded.state_dict()
    assert set(mine) == set(theirs)
    assert all(torch.equal(mine[name].to(dtype), theirs[name]) for name in mine)
    assert {tensor.dtype for tensor in theirs.values() if tensor.is_floating_point()} == {dtype}


def test_a_tied_gpt2_is_loaded_from_one_file_and_from_several(tmp_path, ckpt, checkpoint, transformers):
    module = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    run, config = checkpoint(module, prefix="net.")
    auto = transformers.AutoModelForCausalLM
    answer = ckpt("convert", run, tmp_path / "one", "--to", "hf", "--config", config, "--strip", "net.", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["tied"] == {"lm_head.weight": "transformer.wte.weight"}
    assert answer.json["files"] == ["model.safetensors"]
    assert "lm_head.weight" not in load_file(tmp_path / "one" / "model.safetensors")
    assert_loads(auto, tmp_path / "one", module)
    tied = auto.from_pretrained(tmp_path / "one")
    assert tied.lm_head.weight is tied.transformer.wte.weight
    words = ["--to", "hf", "--config", config / "config.json", "--strip", "net.", "--max-shard-size", "8KB"]
    answer = ckpt("convert", run, tmp_path / "many", *words, "--dtype", "bf16", "--json")
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert files == answer.json["files"]
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert all((tmp_path / "many" / file).stat().st_size < 12_000 for file in files)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert (
        index["metadata"]["total_size"]
        == answer.json["size"]
        == sum(tensor.numel() * 2 for tensor in module.parameters())
    )
    assert set(index["weight_map"].values()) == set(files)
    assert_loads(auto, tmp_path / "many", module, torch.bfloat16)


def test_a_bert_is_loaded_and_its_own_weights_tell_other_names(tmp_path, ckpt, checkpoint, golden, transformers):
    module = transformers.BertForMaskedLM(transformers.BertConfig(**BERT))
    run, config = checkpoint(module)
    answer = ckpt("convert", run, tmp_path / "out", "--to", "hf", "--config", config)
    golden("checkpoint/convert-hf.txt", answer.out)
    assert (tmp_path / "out" / "vocab.txt").read_text() == "[PAD]\n"
    assert_loads(transformers.AutoModelForMaskedLM, tmp_path / "out", module)
    again = ckpt("convert", run, tmp_path / "again", "--to", "hf", "--config", tmp_path / "out", "--json")
    assert (again.json["missing"], again.json["besides"]) == ([], [])
    base = transformers.BertModel(module.config)
    base.save_pretrained(tmp_path / "base")
    answer = ckpt("convert", run, tmp_path / "x", "--to", "hf", "--config", tmp_path / "base")
    assert (answer.code, "pass --strip bert." in answer.err, (tmp_path / "x").exists()) == (2, True, False)
    torch.save(base.state_dict(), tmp_path / "base.pt")
    run = tmp_path / "base-run"
    assert ckpt("convert", tmp_path / "base.pt", run, "--step", 1).code == 0
    answer = ckpt("convert", run, tmp_path / "x", "--to", "hf", "--config", tmp_path / "base")
    assert answer.code == 0, answer.err
    assert_loads(transformers.AutoModel, tmp_path / "x", base)


@pytest.fixture
def made_up(tmp_path):
    """A checkpoint cut over two ranks, in which a head is tied, and biases are equal without being tied."""
    table = bytes(range(24))
    ranks = [{"model.wte.weight": ((4, 6), box)} for box in cut((4, 6), [[2], []], table)]
    for rank, box in zip(ranks, cut((4, 6), [[2], []], table), strict=True):
        rank["model.lm_head.weight"] = ((4, 6), box)
    ranks[0] |= {"model.a.bias": whole(3), "model.b.bias": whole(3), "optim.a.bias.exp_avg": whole(3)}
    write(tmp_path / "run", 1, ranks)
    (tmp_path / "config.json").write_text('{"model_type": "x", "torch_dtype": "float32"}')
    return tmp_path / "run", tmp_path / "config.json"


def test_equal_bytes_alone_are_no_tie(tmp_path, ckpt, made_up):
    run, config = made_up
    answer = ckpt("convert", run, tmp_path / "out", "--to", "hf", "--config", config, "--json")
    assert answer.json["tied"] == {"lm_head.weight": "wte.weight"}
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == {"wte.weight", "a.bias", "b.bias"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"  # no floats here
    config.write_text('{"model_type": "x", "tie_word_embeddings": false}')
    answer = ckpt("convert", run, tmp_path / "untied", "--to", "hf", "--config", config, "--json")
    assert (answer.json["tied"], answer.json["tensors"]) == ({}, 4)


def test_a_folder_is_written_as_a_whole_or_not_at_all(tmp_path, ckpt, made_up):
    run, config = made_up
    words = ["--to", "hf", "--config", config]
    before = sorted(path.name for path in tmp_path.iterdir())
    (run / "step-00000001" / "rank-00001.safetensors").write_bytes(b"")
    answer = ckpt("convert", run, tmp_path / "out", *words)
    assert (answer.code, "not converted" in answer.out) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_targets_and_configs_that_cannot_be_are_refused(tmp_path, ckpt, made_up):
    run, config = made_up
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("{}")
    said = {
        ("full", config): "exists and is not empty", ("config.json", config): "is a file",
        ("new", None): "pass --config", ("new", tmp_path / "none"): "does not exist",
        ("new", tmp_path / "empty"): "does not exist", ("new", tmp_path / "other.json"): "no model_type",
        ("no/new", config): "does not exist",
    }  # fmt: skip
    for (out, given), words in said.items():
        more = [] if given is None else ["--config", given]
        answer = ckpt("convert", run, tmp_path / out, "--to", "hf", *more)
        assert (answer.code, words in answer.err, answer.err.count("\n")) == (2, True, 1), answer.err
    assert "--all" in ckpt("convert", run, tmp_path / "new", "--to", "hf", "--config", config, "--all").err
    assert ckpt("convert", run, tmp_path / "empty", "--to", "hf", "--config", config).code == 0


def test_sizes_and_files():
    assert [parse_size(text) for text in ("5GB", "2 GiB", "500mb", "7")] == [5 * 10**9, 2**31, 5 * 10**8, 7]
    for text in ("", "GB", "5XB", "-1GB", "0"):
        with pytest.raises(UsageError, match="not a size"):
            parse_size(text)
    files = split({"a": 4, "b": 4, "c": 9, "d": 1}, 8)
    assert list(files.values()) == [["a", "b"], ["c"], ["d"]]
    assert list(files) == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
