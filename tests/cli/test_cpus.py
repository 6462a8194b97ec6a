"""Ranks on their own CPUs, as the kernel sees it."""

import json
import os

import pytest

pytestmark = pytest.mark.cli

SOURCE = """
import json, os, subprocess, sys
child = subprocess.run([sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"], capture_output=True)
seen = [sorted(os.sched_getaffinity(0)), json.loads(child.stdout), os.environ.get("DTK_CPUS")]
print("@" + json.dumps(seen))
"""


def test_each_rank_and_what_it_starts_stay_on_cpus_of_their_own(start):
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    shell = dict.fromkeys(("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"), "")
    run = start(SOURCE, "--nproc", "2", "--cpu-bind", "auto", environ=shell)
    code, out, err = run.wait()
    assert code == 0, err
    plan = json.loads((run.folder / "runs/script/plan.json").read_text())
    first, second = plan["resources"]["cpus"] or pytest.skip("one physical core, or a quota below the affinity")
    seen = {line[:3]: json.loads(line.partition("@")[2]) for line in out.splitlines()}
    assert seen == {"[0]": [first, first, None], "[1]": [second, second, None]}
    assert set(first) | set(second) <= os.sched_getaffinity(0)
    assert not set(first) & set(second)
