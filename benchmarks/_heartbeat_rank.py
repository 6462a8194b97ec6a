"""The rank of `dtk bench heartbeat`: steps with and without the heartbeat, which take turns.

Started by `dtk launch`, so the hook is the real one; a step without has it taken out of torch's table of hooks.
Prints one JSON object a line.
"""

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from bench_parts.machine import busy_core_seconds

_CALLS = 100_000


def step_of(milliseconds: float) -> "tuple[torch.optim.Optimizer, object]":
    """An optimizer, and a function that does a whole training step of about so long."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(4)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=False)
    rows = 16

    def step() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    while True:
        x = torch.randn(rows, 256)
        times = []
        for _ in range(30):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        if statistics.median(times[10:]) * 1000 >= milliseconds or rows > 1 << 16:
            return optimizer, step
        rows = max(rows + 1, int(rows * 1.2))


@contextmanager
def seen_from_within() -> "Iterator[dict[str, float | None]]":
    """`seconds` and `others_cpu_seconds` of the body, after it; the launcher is one of the others. Off Linux None."""
    seen: dict[str, float | None] = {}
    busy, own, began = busy_core_seconds(), time.process_time(), time.perf_counter()
    yield seen
    seconds, own = time.perf_counter() - began, time.process_time() - own
    after = busy_core_seconds()
    others = None if busy is None or after is None else round(max(0.0, after - busy - own), 3)
    seen.update(seconds=round(seconds, 6), others_cpu_seconds=others)


def main(first: int, rounds: int, steps: int, milliseconds: float) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    hooks = sys.modules["torch.optim.optimizer"]._global_optimizer_post_hooks
    ours = {key: hook for key, hook in hooks.items() if hook.__qualname__.startswith("_register.")}
    if len(ours) != 1:
        raise SystemExit(f"the heartbeat's hook is not there; hooks: {list(hooks.values())}")
    ((key, hook),) = ours.items()
    optimizer, step = step_of(milliseconds)
    tell({"kind": "setup", "threads": torch.get_num_threads()})
    began = time.perf_counter()
    for _ in range(_CALLS):
        hook(optimizer, (), {})
    tell({"kind": "call", "microseconds": (time.perf_counter() - began) / _CALLS * 1e6})
    for number in (0, *range(max(1, first), rounds + 1)):  # what is gone on with needs a warm-up, too
        times: dict[str, list[float]] = {"with": [], "without": []}
        with seen_from_within() as seen:
            for turn in range(2 * steps):
                mode = "with" if turn % 2 else "without"
                hooks.pop(key, None)
                if mode == "with":
                    hooks[key] = hook
                began = time.perf_counter()
                step()
                times[mode].append(time.perf_counter() - began)
        if number < first:
            continue
        place = {"round": number, "warmup": number == 0}
        tell({"kind": "others", **place, **seen})
        for mode, seconds in times.items():
            tell({"kind": "block", **place, "mode": mode, "milliseconds": statistics.median(seconds) * 1000})


def tell(record: "dict[str, object]") -> None:
    """To the driver."""
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]))
