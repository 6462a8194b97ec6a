"""The keys of a ds_config: which DeepSpeed gets, which are read here, which do nothing here, which are refused."""

from __future__ import annotations

PASSED = frozenset({
    "activation_checkpointing", "communication_data_type", "disable_python_gc", "gradient_predivide_factor",
    "log_level", "optimizer", "prescale_gradients", "scheduler", "zero_optimization",
})  # fmt: skip
"""Top-level keys that DeepSpeed gets as they are, but for the checks below."""

TAKEN = frozenset({
    "bf16", "bfloat16", "data_types", "fp16", "gradient_accumulation_steps", "gradient_clipping",
    "managed_gradient_accumulation", "train_batch_size", "train_micro_batch_size_per_gpu",
})  # fmt: skip
"""Top-level keys that are read here; the engine does what they ask for."""

IDLE = {
    "checkpoint": "rt.checkpointer saves",
    "comms_logger": "it counts DeepSpeed's own steps",
    "dump_state": "it prints DeepSpeed's own state",
    "flops_profiler": "it profiles DeepSpeed's own steps",
    "memory_breakdown": "it prints in DeepSpeed's own steps",
    "steps_per_print": "rt.log prints",
    "wall_clock_breakdown": "it times DeepSpeed's own steps",
    "zero_allow_untested_optimizer": "any torch optimizer is allowed",
    "zero_force_ds_cpu_optimizer": "any torch optimizer is allowed",
}
"""Top-level keys that change nothing here, and why; a key that is on is told of, once."""

REFUSED = {
    "amp": "use precision='fp16' or 'bf16'",
    "autotuning": "run DeepSpeed's own launcher for it",
    "compression_training": "its schedule steps with DeepSpeed's own loop",
    "csv_monitor": "use rt.log",
    "comet": "use rt.log",
    "curriculum_learning": "use rt.loader with a sampler of your own",
    "data_efficiency": "use rt.loader with a sampler of your own",
    "elasticity": "rt.loader keeps the global batch at any number of ranks",
    "expert_parallel": "experts that differ between ranks have no canonical checkpoint",
    "gradient_allreduce_op": "gradients are averages over ranks in every strategy",
    "pipeline": "pipelines are not supported",
    "sequence_parallel_size": "only data parallelism is supported",
    "sparse_attention": "it changes the model; do that in the model",
    "sparse_gradients": "gradients are dense in every strategy",
    "tensor_parallel": "only data parallelism is supported",
    "tensorboard": "use rt.log",
    "torch_autocast": "use precision='fp16' or 'bf16'",
    "wandb": "use rt.log",
    "compile": "pass a compiled model",
    "hybrid_engine": "it is for generation",
    "load_universal": "use rt.checkpointer",
    "use_data_before_expert_parallelism": "experts are not supported",
}
"""Top-level keys that would contradict the engine, and what to do instead."""

ZERO_REFUSED = {
    "cpu_offload": "use offload_optimizer",
    "cpu_offload_param": "use offload_param",
    "legacy_stage1": "it is gone from DeepSpeed",
    "mics_shard_size": "MiCS groups have no canonical checkpoint here",
    "zenflow": "it delays updates, so that a step is not a step",
    "zero_hpz_partition_size": "secondary partitions are not refreshed by a restore",
    "zero_quantized_gradients": "gradients are exact in every strategy",
    "zero_quantized_weights": "weights are exact in every strategy",
}

SCALE_KEYS = frozenset({"enabled", "auto_cast", "loss_scale", "initial_scale_power", "loss_scale_window",
                         "hysteresis", "min_loss_scale", "consecutive_hysteresis"})  # fmt: skip
