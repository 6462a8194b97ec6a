"""The strategy as other libraries are told of it: variables of Accelerate (so of HF's Trainer), Fabric and DeepSpeed.

Their readers' defaults differ from those of their own launchers, so each variable is set. Pure. docs/other-libraries.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.facts import HostFacts
from dtk_launch.options import LaunchOptions, flag_of
from dtk_launch.tuning import given, wrapped_classes
from dtk_launch.values import parse_env

Note = tuple[str, str, str, str]
"""Key, value, source and why of a decision."""

_TOLD = ("ddp", "fsdp", "deepspeed")
"""The strategies that these libraries have; the others are this package's own."""
_FAMILIES = ("ACCELERATE_", "FSDP_", "LT_", "PL_DEEPSPEED", "DS_ACCELERATOR")

_ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
_FABRIC_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}

NO_FSDP_ON_CPUS = "none: Accelerate splits models on accelerators only and would train as DDP; pass --strategy ddp"
"""A policy that Accelerate refuses, and names: on CPUs it would leave FSDP out without a word (AcceleratorState)."""


@dataclass(frozen=True)
class Variable:
    """`option`: the field that the value follows from. `asked`: by an option that was given, not by a default."""

    name: str
    value: str
    option: str
    asked: bool = True


def decide_variables(
    options: LaunchOptions, sources: Mapping[str, str], nodes: int | None, nproc: int, facts: HostFacts
) -> tuple[dict[str, str], tuple[Note, ...]]:
    """The variables that a rank gets, and the decisions to note. `nodes` is None where they come and go.

    Raises:
        PlanError: the environment has one that contradicts an option, or the option does not fit the machine.
    """
    variables = {f"DTK_{name.upper()}": value for name, value in _runtime(options, facts.cwd).items()}
    notes = [(name, value, sources[name[4:].lower()], "") for name, value in variables.items()]
    environ, by_hand = dict(facts.environ), dict(parse_env(options.env))
    if "DTK_SUPERVISOR" in environ:  # what another dtk has set for the rank that starts this one
        environ = {}
    for variable in _contract(options, nodes, nproc, facts):
        name, value, preset = variable.name, variable.value, environ.get(variable.name)
        if name in by_hand:
            continue
        if preset is not None and not _same(preset, value):
            if variable.asked:
                raise _contradiction(variable, preset, options)
            notes.append((name, preset, f"environment {name}", "left as it is set"))
            continue
        variables[name] = value
        notes.append((name, value, sources[variable.option], f"follows from {flag_of(variable.option)}"))
    if options.strategy not in _TOLD:
        notes += _strays(environ, set(variables))
    return variables, tuple(notes)


def _runtime(options: LaunchOptions, cwd: Path) -> dict[str, str]:
    told = {name: value for name, value in given(options).items() if name != "fsdp_state_dict"}
    if "deepspeed_config" in told:
        told["deepspeed_config"] = str(cwd / Path(told["deepspeed_config"]).expanduser())
    return told


def _same(preset: str, value: str) -> bool:
    return preset.lower() == value.lower()


def _contradiction(variable: Variable, preset: str, options: LaunchOptions) -> PlanError:
    asked = getattr(options, variable.option)
    return PlanError(
        f"{variable.name}={preset} is set in the environment, but {flag_of(variable.option)} {asked} means "
        f"{variable.name}={variable.value}; unset {variable.name}, or pass --env {variable.name}={preset} to insist"
    )


def _strays(environ: Mapping[str, str], set_here: set[str]) -> Iterator[Note]:
    for name, value in environ.items():
        if name.startswith(_FAMILIES) and name not in set_here:
            yield name, value, f"environment {name}", "other libraries obey it; unset it if it is a stray"


def _contract(options: LaunchOptions, nodes: int | None, nproc: int, facts: HostFacts) -> Iterator[Variable]:
    """Everything that the readers of these libraries ask the environment for, under this strategy."""
    if options.precision != "auto":
        yield Variable("ACCELERATE_MIXED_PRECISION", _ACCELERATE_PRECISION[options.precision], "precision")
        yield Variable("LT_PRECISION", _FABRIC_PRECISION[options.precision], "precision")
    if options.strategy not in _TOLD:
        return
    on_gpus = options.device != "cpu" and facts.gpus.number > 0
    deepspeed = options.strategy == "deepspeed"
    yield Variable("ACCELERATE_USE_FSDP", _word(options.strategy == "fsdp"), "strategy")
    yield Variable("ACCELERATE_USE_DEEPSPEED", _word(deepspeed), "strategy")
    yield Variable("ACCELERATE_USE_MEGATRON_LM", "false", "strategy")
    # true makes Accelerate leave DeepSpeed out without a word
    yield Variable("ACCELERATE_USE_CPU", _word(not on_gpus and not deepspeed), "device")
    if options.strategy == "fsdp":
        yield from _fsdp(options, on_gpus)
    if deepspeed:
        yield from _deepspeed(options, facts, on_gpus)
    # not LT_CLI_USED=1: with it, Fabric refuses scripts that call fabric.launch(), as those for torchrun do
    yield Variable("LT_STRATEGY", _fabric_strategy(options), "strategy")
    yield Variable("LT_ACCELERATOR", "cuda" if on_gpus else "cpu", "device")
    yield Variable("LT_DEVICES", str(nproc), "nproc")
    if nodes is not None:
        yield Variable("LT_NUM_NODES", str(nodes), "nodes")


def _fsdp(options: LaunchOptions, on_gpus: bool) -> Iterator[Variable]:
    if options.offload == "cpu" and not on_gpus:
        raise PlanError("--offload=cpu with --strategy fsdp needs a GPU: on CPUs the weights are in CPU memory already")
    asked = given(options)

    def variable(name: str, value: str, option: str = "") -> Variable:
        return Variable(f"FSDP_{name}", value, option or "strategy", option in asked)

    wrap, classes = options.fsdp_wrap, wrapped_classes(options.fsdp_wrap)
    by_size, whole = wrap.isdecimal(), wrap == "none"
    policy = "SIZE_BASED_WRAP" if by_size else "NO_WRAP" if whole else "TRANSFORMER_BASED_WRAP"
    # version 2 is torch's fully_shard; version 1 is about to go from torch, Accelerate and transformers
    yield variable("VERSION", "2")
    yield variable("RESHARD_AFTER_FORWARD", options.fsdp_reshard or "true", "fsdp_reshard")
    yield variable("OFFLOAD_PARAMS", _word(options.offload == "cpu"), "offload")
    if on_gpus:
        yield variable("AUTO_WRAP_POLICY", policy, "fsdp_wrap")
    else:
        yield Variable("FSDP_AUTO_WRAP_POLICY", NO_FSDP_ON_CPUS, "strategy")
    if classes:
        yield variable("TRANSFORMER_CLS_TO_WRAP", ",".join(classes), "fsdp_wrap")
    if by_size:
        yield variable("MIN_NUM_PARAMS", wrap, "fsdp_wrap")
    yield variable("STATE_DICT_TYPE", f"{options.fsdp_state_dict or 'sharded'}_state_dict".upper(), "fsdp_state_dict")
    # true would leave from_pretrained without weights on all ranks but the first, in scripts of any library
    yield variable("CPU_RAM_EFFICIENT_LOADING", "false")
    recompute = options.fsdp_activation_checkpointing or "false"
    yield variable("ACTIVATION_CHECKPOINTING", recompute, "fsdp_activation_checkpointing")
    yield variable("ACTIVATION_CHECKPOINTING_OFFLOAD", "false")


def _deepspeed(options: LaunchOptions, facts: HostFacts, on_gpus: bool) -> Iterator[Variable]:
    if not on_gpus:
        yield Variable("DS_ACCELERATOR", "cpu", "device")
        if facts.gpus.number:  # Accelerate asks torch, and would take them
            yield Variable("CUDA_VISIBLE_DEVICES", "", "device")
    if options.deepspeed_config:
        path = str(facts.cwd / Path(options.deepspeed_config).expanduser())
        yield Variable("ACCELERATE_DEEPSPEED_CONFIG_FILE", path, "deepspeed_config")
        yield Variable("PL_DEEPSPEED_CONFIG_PATH", path, "deepspeed_config")
        return
    asked = given(options)
    stage = options.zero_stage or "2"
    offload = (options.offload, "offload", "offload" in asked)
    weights = offload if stage == "3" else ("none", "zero_stage", "zero_stage" in asked)

    def variable(name: str, value: str, option: str, was_asked: bool) -> Variable:
        return Variable(f"ACCELERATE_DEEPSPEED_{name}", value, option, was_asked)

    yield variable("ZERO_STAGE", stage, "zero_stage", "zero_stage" in asked)
    yield variable("OFFLOAD_OPTIMIZER_DEVICE", *offload)
    yield variable("OFFLOAD_PARAM_DEVICE", *weights)
    yield variable("ZERO3_INIT", _word(stage == "3"), "zero_stage", False)
    # without it, Accelerator.get_state_dict and Trainer.save_model fail or save no whole model at stage 3
    yield variable("ZERO3_SAVE_16BIT_MODEL", _word(stage == "3"), "zero_stage", False)


def _fabric_strategy(options: LaunchOptions) -> str:
    """Fabric's name; at stage 0, which it does not have, one that it refuses."""
    if options.strategy == "ddp":
        return "ddp"
    offload = "_offload" if options.offload == "cpu" else ""
    if options.strategy == "fsdp":
        return "fsdp_cpu_offload" if offload else "fsdp"
    return "deepspeed" if options.deepspeed_config else f"deepspeed_stage_{options.zero_stage or 2}{offload}"


def _word(value: bool) -> str:
    return "true" if value else "false"
