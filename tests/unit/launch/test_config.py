import pytest
from dtk_launch.config import resolve
from dtk_launch.errors import ConfigError
from dtk_launch.options import LaunchOptions, SubmitOptions

FILE = """
nproc = 2
strategy = "ddp"
max-restarts = 1
env = {NCCL_DEBUG = "INFO"}

[profile.big]
nproc = "gpu"
partition = "long"
"""


@pytest.fixture
def options(tmp_path):
    def make(file="", environ=None, kind=LaunchOptions, **given):
        if file:
            (tmp_path / "dtk.toml").write_text(file)
        return resolve(kind, {"script": "t.py"} | given, environ or {}, tmp_path)

    return make


def test_the_order_is_flag_environment_profile_file_default(options):
    environ = {"DTK_STRATEGY": "single", "DTK_PROFILE": "big", "DTK_NPROC": ""}
    settings = options(FILE, environ, max_restarts=3)
    assert (settings.options.max_restarts, settings.sources["max_restarts"]) == (3, "flag --max-restarts")
    assert (settings.options.strategy, settings.sources["strategy"]) == ("single", "environment DTK_STRATEGY")
    assert (settings.options.nproc, settings.sources["nproc"]) == ("gpu", "dtk.toml:8 profile big")
    assert (settings.options.env, settings.sources["env"]) == (("NCCL_DEBUG=INFO",), "dtk.toml:5")
    assert settings.sources["env NCCL_DEBUG"] == "dtk.toml:5"
    assert (settings.options.device, settings.sources["device"]) == ("auto", "default")


def test_pairs_add_up_name_by_name(options):
    file = "[env]\nA = '1'\nB = '1'\nC = '1'\n[profile.big]\nsbatch = ['qos=low', 'mem=1G']\n"
    file += "[profile.big.env]\nB = '2'\nC = '2'\n"
    settings = options(file, kind=SubmitOptions, profile="big", env=("C=3", "D=3"), sbatch=("qos=high",))
    assert settings.options.env == ("A=1", "B=2", "C=3", "D=3")
    assert settings.options.sbatch == ("qos=high", "mem=1G")
    of_env = {name: source for name, source in settings.sources.items() if name.startswith("env")}
    expected = {"env A": "dtk.toml:2", "env B": "dtk.toml:8 profile big", "env C": "flag --env", "env D": "flag --env"}
    assert of_env == {"env": "flag --env", **expected}
    assert settings.sources["sbatch mem"] == "dtk.toml:6 profile big"
    assert options(file).options.env == ("A=1", "B=1", "C=1")


def test_without_a_profile_the_file_alone_counts(options):
    assert options(FILE).options.nproc == "2"


def test_a_submit_setting_in_the_file_is_no_error_for_a_launch(options):
    assert options(FILE, kind=SubmitOptions, profile="big").options.partition == "long"
    assert options(FILE, profile="big").options.nproc == "gpu"


@pytest.mark.parametrize(
    ("file", "given", "said"),
    [
        ("nprocs = 2", {}, ["dtk.toml:1", "unknown setting 'nprocs'", "did you mean nproc?"]),
        ("[profile.a]\nstrateggy = 'ddp'", {"profile": "a"}, ["dtk.toml:2 profile a", "did you mean strategy?"]),
        ("[profile.big]\nnproc = 2", {"profile": "bog"}, ["unknown profile 'bog'", "did you mean big?"]),
        ("", {"profile": "x"}, ["unknown profile 'x'", "neither dtk.toml"]),
        ("max-restarts = 'many'", {}, ["max_restarts", "'many'", "whole number"]),
        ("max-restarts = true", {}, ["whole number"]),
        ("nproc = [2]", {}, ["nproc", "neither text nor a whole number"]),
        ("env = 'A=1'", {}, ["env", "neither a table nor a list"]),
        ("profile = 'big'", {"profile": "big"}, ["dtk.toml:1", "profile = 'big' is no table"]),
        ("[profile]\nbig = 1", {"profile": "big"}, ["dtk.toml:2 profile big", "write [profile.big]"]),
        ("nproc = = 2", {}, ["dtk.toml", "not TOML"]),
    ],
)
def test_what_is_wrong_in_the_file_is_named(options, file, given, said):
    with pytest.raises(ConfigError) as caught:
        options(file, **given)
    for words in said:
        assert words in str(caught.value)


def test_a_variable_that_is_no_number(options):
    with pytest.raises(ConfigError, match=r"DTK_MAX_RESTARTS.*'x'.*whole number"):
        options(environ={"DTK_MAX_RESTARTS": "x"})


def test_pyproject_is_read_only_for_tool_dtk(options, tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text("[tool.other]\nnproc = 9\n= broken, and none of our business")
    assert options().options.nproc == "auto"
    project.write_text("[tool.dtk]\nnproc = 3\n[tool.dtk.profile.p]\nnproc = 4")
    assert (options().options.nproc, options().sources["nproc"]) == ("3", "pyproject.toml:2")
    assert options(profile="p").options.nproc == "4"
    with pytest.raises(ConfigError, match="keep one"):
        options("nproc = 2")


def test_a_rank_that_launches_does_not_pass_its_own_run_on(options):
    outer = {"DTK_RUN_DIR": "/runs/outer", "DTK_RUN_NAME": "outer", "DTK_STRATEGY": "ddp"}
    assert options(environ=outer).options.run_dir == "/runs/outer"
    inner = options(environ=outer | {"DTK_SUPERVISOR": "host:1"}).options
    assert (inner.run_dir, inner.name, inner.strategy) == ("", "", "ddp")
