"""DeepSpeed's gradient buffers: finished before a step, and forgotten after it."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from dist_toolkit.strategies.state import strip_wrappers


def begin_backward(zero: Any) -> None:
    """Tell DeepSpeed that a backward pass begins; it would learn so from its own forward pass, once for each."""
    zero.clear_backward_seen_flag()
    zero.set_gradient_accumulation_boundary(False)
    zero.backward_prologue()
    zero.enter_backward()


def finish_gradients(engine: Any, zero: Any, stage: int) -> None:
    """After the last backward of a step: average what is not averaged yet. Collective.

    Stages 2 and 3 have reduced in each backward; 0 and 1 reduce here.
    """
    if stage >= 2:
        zero.finalize_gradient_accumulation_boundary()
        return
    for parameter in engine.module.parameters():
        # ranks must reduce the same ones, also where the loss did not depend on one
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    engine._running_engine_step = True
    try:
        engine.allreduce_gradients()
    finally:
        engine._running_engine_step = False


def gradient_norm(zero: Any, stage: int) -> torch.Tensor:
    """The global 2-norm of the finished gradients, a scalar, inf where one is not finite. Collective."""
    combine: Any = importlib.import_module("deepspeed.runtime.utils").combine_grad_norm_groups
    norm = combine(zero._get_norm_groups()) if stage == 3 else zero.scaled_global_norm()
    return torch.as_tensor(norm, dtype=torch.float32).div(zero.loss_scale)


def forget_gradients(zero: Any, stage: int) -> None:
    """Leave nothing of any backward pass behind, finished or not, of this engine's loss or of another one's. Local."""
    for parameters in zero.fp16_groups if stage == 3 else zero.bit16_groups:
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.device.type == "cpu":
                parameter.grad = None  # DeepSpeed would ask the CPU for its stream
    zero.zero_grad(set_to_none=True)
    zero.clip_grad = 0.0
    zero._backward_active_depth = 0
    zero._epilogue_ran_this_backward = False
    if stage == 3:
        _forget_partitioned_weights(zero)
    else:
        _forget_partitioned_state(zero)


def _forget_partitioned_state(zero: Any) -> None:
    zero.micro_step_id = importlib.import_module("deepspeed.runtime.zero.stage_1_and_2").INITIAL_MICRO_STEP_ID
    for bucket in zero.ipg_buckets.values():
        bucket.clear()
    zero.extra_large_param_to_reduce.clear()
    zero.params_already_reduced = [False] * len(zero.params_already_reduced)
    zero._release_ipg_buffers()
    zero._release_preflattened_grad_buffers()
    for group in list(zero.averaged_gradients):
        zero.averaged_gradients[group] = None
    for group in list(zero.all_grad_tensors):
        zero.all_grad_tensors[group] = None
    if zero.cpu_offload:
        zero.reset_cpu_buffers()
        zero._offload_accumulated_param_ids = set()
        kept = [flat.grad for flat in zero.single_partition_of_fp32_groups if flat.grad is not None]
        _clear([*kept, *zero.accumulated_grads_in_cpu.values()])


def _forget_partitioned_weights(zero: Any) -> None:
    zero.micro_step_id = 0
    for bucket in zero.ipg_buckets.values():
        bucket.clear_params()
    for number in zero.params_already_reduced:
        zero.params_already_reduced[number] = False
    zero.averaged_gradients = {}
    # else a parameter that the next loss does not depend on would take this step's gradient again
    _clear([zero.grad_partitions_flat_buffer])
    if zero.offload_optimizer:
        zero.reset_cpu_buffers()
        zero._offload_boundary_param_ids = set()
        _clear([flat.grad for flat in zero.fp32_partitioned_groups_flat if flat.grad is not None])


def _clear(buffers: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for buffer in buffers:
            buffer.zero_()


class GradientWitness:
    """Notes which trainable parameters get a gradient, until it is closed; ZeRO keeps none where one could look."""

    def __init__(self, module: nn.Module) -> None:
        self._seen: set[str] = set()
        named = [(strip_wrappers(name), p) for name, p in module.named_parameters() if p.requires_grad]
        self._names = [name for name, _ in named]
        self._hooks: list[Any] = [self._watch(parameter, self._note(name)) for name, parameter in named]

    def missing(self) -> list[str]:
        """Names of those without."""
        return [name for name in self._names if name not in self._seen]

    def close(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @staticmethod
    def _watch(parameter: Any, note: Any) -> Any:
        return parameter.register_post_accumulate_grad_hook(note)

    def _note(self, name: str) -> Any:
        return lambda _: self._seen.add(name)
