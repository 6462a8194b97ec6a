"""The wheel and the sdist: built, installed in an environment of their own, and used there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = [pytest.mark.cli, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(command: list[object], folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "TMPDIR": str(folder), **environ}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=env, text=True, capture_output=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    done = run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], out)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.suffix: path for path in out.iterdir() if path.suffix in (".whl", ".gz")}


# The wheel is itself built from the sdist, so the sdist is installed by the long runs alone.
@pytest.fixture(
    scope="module",
    params=[pytest.param(".whl", id="wheel"), pytest.param(".gz", id="sdist", marks=pytest.mark.slow)],
)
def installed(
    request: pytest.FixtureRequest, artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """`bin` of a new environment: this distribution installed in it, and the packages that it depends on in reach.

    They are read from the environment that runs the tests (a second torch would take minutes); its own copy of this
    project is an editable one, which a path in a .pth file does not bring along.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    here = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{here}\n")
    command = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    done = run([*command, artifacts[request.param]], folder)
    assert done.returncode == 0, done.stderr
    where = run(
        [python, "-c", "import dist_toolkit, dtk_launch; print(dist_toolkit.__file__, dtk_launch.__file__)"], folder
    )
    assert where.stdout.count(str(site)) == 2, where.stdout + where.stderr
    return folder / "bin"


def test_installed_package_trains_renders_and_measures(installed: Path, tmp_path: Path) -> None:
    demo = tmp_path / "train.py"
    demo.write_text((ROOT / "examples" / "train_digits.py").read_text(encoding="utf-8"))
    done = run([installed / "dtk", "launch", "--nproc", "2", "--device", "cpu", "train.py", "--epochs", "3"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"test accuracy 0\.\d{3}$", done.stdout.strip())
    text = run([installed / "dtk", "submit", "--nodes", "2", "--nproc", "1", "--dry-run", "train.py"], tmp_path)
    assert "#SBATCH --nodes=2" in text.stdout, text.stderr
    names = run([installed / "dtk", "bench"], tmp_path)
    assert "throughput" in names.stdout + names.stderr
    bench = run([installed / "dtk", "bench", "throughput", "--help"], tmp_path)
    assert "--strategies" in bench.stdout, bench.stderr
    made = run([installed / "dtk", "init", "mine"], tmp_path)
    assert (made.returncode, (tmp_path / "mine" / "train.py").is_file()) == (0, True), made.stderr
    version = run([installed / "dtk", "--version"], tmp_path)
    assert "dtk 0.1.0" in version.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_installed_from_nothing_but_the_index(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """In an empty environment, with every dependency installed anew: what the metadata asks for is enough."""
    venv.create(tmp_path / "environment", with_pip=True)
    binaries = tmp_path / "environment" / "bin"
    wanted = f"{artifacts['.whl']}[examples]"
    command = [binaries / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wanted]
    subprocess.run(list(map(str, command)), check=True, timeout=900)
    demo = ROOT / "examples" / "train_digits.py"
    done = run([binaries / "dtk", "launch", "--nproc", "2", "--device", "cpu", demo], tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) >= 0.95


def test_wheel_holds_types_data_and_nothing_of_the_checkout(artifacts: dict[str, Path]) -> None:
    names = zipfile.ZipFile(artifacts[".whl"]).namelist()
    for wanted in ("dist_toolkit/py.typed", "dtk_launch/py.typed", "dtk_launch/_data/slurm/job.sbatch.j2"):
        assert wanted in names
    for wanted in ("train.py", "dtk.toml"):
        assert f"dtk_launch/_data/examples/starter/{wanted}" in names
    assert {name.split("/")[0] for name in names} == {"dist_toolkit", "dtk_launch", "dist_toolkit-0.1.0.dist-info"}
    assert not [name for name in names if name.endswith(".pyc") or "reports" in name]


IMPORTED_AS = {"scikit-learn": "sklearn", "typing-extensions": "typing_extensions"}


@pytest.mark.parametrize("package", ["dist_toolkit", "launch/dtk_launch"])
def test_what_is_imported_is_declared(package: str) -> None:
    declared = {re.split(r"[><=;\[ ]", line)[0] for line in PROJECT["dependencies"]}
    known = (
        {IMPORTED_AS.get(name, name) for name in declared} | {"dist_toolkit", "dtk_launch"} | sys.stdlib_module_names
    )
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= known, f"{file}: {names}"


def test_every_pin_of_the_setup_is_exact() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.+!-]+( ;.*)?$", pin) for pin in pins)
    pinned = {re.split("==", pin)[0].lower().replace("_", "-") for pin in pins}
    declared = {re.split(r"[><=;\[ ]", d)[0] for extra in PROJECT["optional-dependencies"].values() for d in extra}
    declared |= {re.split(r"[><=;\[ ]", d)[0] for d in PROJECT["dependencies"]}
    assert declared - {"dist-toolkit", "tomli"} <= pinned
