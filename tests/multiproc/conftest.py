"""The server of these tests' ranks has imported what DeepSpeed wants of torch too: two seconds that no rank spends."""

from dist_toolkit import testing

testing._PRELOAD.append("torch._inductor.compile_fx")
