"""How long the command line takes to answer, dtk against torchrun. Run: dtk bench launch --out DIR

A round starts every command once, in an order that changes from round to round, so that what else the machine does
falls on all of them alike. Reported are medians, quartiles, and the ratio to `torchrun --help` of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

BASELINE = "torchrun --help"


def commands(script: Path) -> dict[str, list[str]]:
    """Label -> argv."""
    programs = Path(sys.executable).parent
    dtk = str(programs / "dtk")
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "dtk --help": [dtk, "--help"],
        "dtk launch --help": [dtk, "launch", "--help"],
        "dtk launch --dry-run": [dtk, "launch", "--nproc", "2", "--dry-run", str(script)],
        "dtk explain": [dtk, "explain", "--nproc", "2", str(script)],
        BASELINE: [str(programs / "torchrun"), "--help"],
    }


def measure(repeats: int) -> list[dict[str, object]]:
    """One row for each start, in the order of the starts. The first round only warms the file cache."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text("print('never run')\n")
        todo = list(commands(script).items())
        for round_number in range(-1, repeats):
            turn = (round_number + 1) % len(todo)
            for label, argv in todo[turn:] + todo[:turn]:
                began = time.perf_counter()
                subprocess.run(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True, cwd=folder)
                seconds = time.perf_counter() - began
                if round_number >= 0:
                    rows.append({"round": round_number, "command": label, "seconds": round(seconds, 4)})
    return rows


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    packages = {name: version(name) for name in ("torch", "click", "dist-toolkit")}
    load = round(os.getloadavg()[0], 1)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load average before": load,
        "python": platform.python_version(),
        **packages,
    }


def report(rows: Sequence[dict[str, object]], host: dict[str, object]) -> str:
    """The table, as Markdown."""
    times: dict[str, list[float]] = {}
    for row in rows:
        times.setdefault(str(row["command"]), []).append(float(str(row["seconds"])))
    order = sorted(times, key=lambda label: statistics.median(times[label]))
    lines = ["# Time to answer", "", ", ".join(f"{key} {value}" for key, value in host.items()), ""]
    lines += ["| command | median s | quartiles s | torchrun --help / this |", "|---|---|---|---|"]
    by_round = {(row["command"], row["round"]): float(str(row["seconds"])) for row in rows}
    for label in order:
        ratios = [by_round[BASELINE, n] / by_round[label, n] for c, n in by_round if c == label]
        low, middle, high = statistics.quantiles(times[label], n=4, method="inclusive")
        lines.append(f"| `{label}` | {middle:.3f} | {low:.3f} to {high:.3f} | {statistics.median(ratios):.1f} |")
    rounds = len(times[BASELINE])
    lines += ["", f"{rounds} interleaved rounds; the ratio is the median of the rounds' own ratios."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="dtk bench launch", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for results.jsonl and report.md")
    parser.add_argument("--repeats", type=int, default=9, help="measured rounds, 2 or more (default 9)")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error(f"--repeats={options.repeats}: quartiles need 2 or more")
    host = machine()
    rows = measure(options.repeats)
    options.out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in ({"machine": host}, *rows))
    (options.out / "results.jsonl").write_text(text, encoding="utf-8")
    (options.out / "report.md").write_text(report(rows, host), encoding="utf-8")
    print(report(rows, host), end="")


if __name__ == "__main__":
    main()
