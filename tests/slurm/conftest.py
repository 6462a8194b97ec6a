"""A real SLURM cluster (slurm/cluster/) for the tests of this folder; it ends however the session ends."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "slurm" / "cluster"
CANNOT = "cannot start: "  # up.sh's words, with exit code 2, for "not on this machine"
FINAL = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
}


@dataclass(frozen=True)
class Job:
    """What the controller says about a job. exit_code is SLURM's `code:signal`."""

    id: int
    state: str
    exit_code: str
    nodes: str
    stdout: Path

    @property
    def log(self) -> str:
        """All that the job has printed so far."""
        return self.stdout.read_text(errors="replace") if self.stdout.exists() else "(no log)"


@dataclass(frozen=True)
class Process:
    """A process, as this machine sees it from outside. `started` tells it from a later one with the same pid."""

    pid: int
    parent: int
    started: int
    command: str


def all_processes() -> list[Process]:
    """Every process of this machine but the zombies: a container without an init keeps those for ever."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            name, fields = re.fullmatch(r"\d+ \((.*)\) (.*)", (entry / "stat").read_text(), re.DOTALL).groups()
            state, parent, *rest = fields.split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip() or name
            if state not in "ZX":
                found.append(Process(int(entry.name), int(parent), int(rest[17]), command))
    return found


def below(pid: int) -> list[Process]:
    """The process and its descendants."""
    everyone, wanted, family = all_processes(), {pid}, []
    while new := [p for p in everyone if p not in family and (p.pid in wanted or p.parent in wanted)]:
        family += new
        wanted |= {p.pid for p in new}
    return family


class Cluster:
    """One cluster in one directory. `settings` are the DTK_CLUSTER_* variables of up.sh, without the prefix."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self._lease: int | None = None
        self._settings = {f"DTK_CLUSTER_{name}": str(value) for name, value in settings.items()}

    def script(self, name: str, *args: str, timeout: float = 60, **options) -> subprocess.CompletedProcess[str]:
        """Run a script of slurm/cluster/ on this cluster."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DTK_")}
        env = clean | options.pop("env", {}) | {"DTK_CLUSTER_DIR": str(self.directory)}
        command = [str(SCRIPTS / name), *args]
        options = {"stdin": subprocess.DEVNULL, "text": True, "errors": "replace"} | options
        return subprocess.run(command, env=env, timeout=timeout, capture_output=True, **options)

    def up(self) -> str:
        """Start it, or skip the test with up.sh's own reason. Returns what up.sh says."""
        # The write end is ours alone and closes with us, killed or not: then the cluster ends itself.
        self.give_up_lease()
        read_end, self._lease = os.pipe()
        try:
            done = self.script(
                "up.sh", env=self._settings | {"DTK_CLUSTER_LEASE": str(read_end)}, pass_fds=(read_end,), timeout=120
            )
        finally:
            os.close(read_end)
        if done.returncode == 2 and done.stderr.startswith(CANNOT):
            pytest.skip(done.stderr.removeprefix(CANNOT).strip())
        assert done.returncode == 0, done.stderr
        return done.stdout

    def give_up_lease(self) -> None:
        """What the kernel does for us if we are killed."""
        if self._lease is not None:
            os.close(self._lease)
            self._lease = None

    def down(self) -> None:
        """End it and everything in it."""
        self.give_up_lease()
        done = self.script("down.sh")
        assert done.returncode == 0, done.stderr

    def run(
        self,
        command: Sequence[str],
        node: str | None = None,
        *,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the login node, or on `node`. With check, a failure of it fails the test."""
        where = ["-n", node] if node else []
        done = self.script("in.sh", *where, *command, timeout=timeout, env=dict(env or {}), cwd=cwd)
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def power(self, order: str, node: str) -> None:
        """`stop` (power cut), `crash` or `start` a node."""
        done = self.script("in.sh", order, node)
        assert done.returncode == 0, done.stderr

    def node_states(self) -> dict[str, str]:
        """State of each node, as sinfo says it: idle, allocated, down*, ... (* = does not answer)."""
        lines = self.run(["sinfo", "-h", "-N", "-p", "main", "-o", "%N %T"]).stdout.splitlines()
        return dict(line.split() for line in lines)

    def submit(self, script: str, *options: str, cwd: Path) -> int:
        """`sbatch` the text of a script; its log goes to `cwd`. Returns the job id."""
        path = cwd / "job.sh"
        path.write_text(script)
        return int(self.run(["sbatch", "--parsable", *options, str(path)], cwd=cwd).stdout.split(";")[0])

    def job(self, job_id: int) -> Job:
        """The job as it is now."""
        text = self.run(["scontrol", "show", "job", "-o", str(job_id)]).stdout
        field = dict(re.findall(r"(?:^| )([A-Za-z]+)=(\S*)", text))
        return Job(job_id, field["JobState"], field["ExitCode"], field["NodeList"], Path(field["StdOut"]))

    def wait_job(self, job_id: int, timeout: float = 60) -> Job:
        """The job once it has ended; fails with its log after `timeout` seconds."""
        end = time.monotonic() + timeout
        while (job := self.job(job_id)).state not in FINAL:
            if time.monotonic() > end:
                self.run(["scancel", str(job_id)], check=False)
                pytest.fail(f"job {job_id} is {job.state} after {timeout:g} s; its log:\n{job.log}")
            time.sleep(0.2)
        return job

    def job_ids(self) -> list[str]:
        """Every job the controller knows, ended ones too."""
        return self.run(["squeue", "-h", "-t", "all", "-o", "%i"]).stdout.split()

    @staticmethod
    def wait_until(question: Callable[[], bool], what: str, timeout: float = 20) -> None:
        """Poll; fails, naming `what`, after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not question():
            if time.monotonic() > end:
                pytest.fail(f"after {timeout:g} s still not: {what}")
            time.sleep(0.1)

    @staticmethod
    def alive(processes: Iterable[Process]) -> list[Process]:
        """Those of the processes that still run."""
        wanted = {(p.pid, p.started) for p in processes}
        return [p for p in all_processes() if (p.pid, p.started) in wanted]

    def processes(self) -> list[Process]:
        """Every process of the cluster, on all its nodes. Commands run by `run` are guests and do not count."""
        return below(int((self.directory / "init.pid").read_text()))

    def job_processes(self) -> list[Process]:
        """Processes that are not the cluster's own: what jobs run, or left behind."""
        own = re.compile(
            r"(: )?(munged|slurmctld|slurmscriptd|slurmd)\b|bash \S+/(login|node)\.sh |unshare -|sleep 3600$"
        )
        return [p for p in self.processes() if not own.match(p.command)]


@pytest.fixture(scope="session")
def make_cluster() -> Iterator[Callable[..., contextlib.AbstractContextManager[Cluster]]]:
    """A function that starts a cluster of its own, in a new directory: `with make_cluster(NODES=2) as cluster`."""

    @contextlib.contextmanager
    def make(**settings: object) -> Iterator[Cluster]:
        # Not tmp_path: the paths of sockets have to be short.
        directory = Path(tempfile.mkdtemp(prefix="dtk-slurm-"))
        cluster = Cluster(directory, **{"NODES": 2, "CPUS": 2, "GPUS": 0} | settings)
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.down()
            shutil.rmtree(directory)

    return make


@pytest.fixture(scope="session")
def cluster(make_cluster) -> Iterator[Cluster]:
    """The cluster that the tests share: two nodes of two CPUs. Jobs in it belong to the test that submits them."""
    with make_cluster() as cluster:
        yield cluster
