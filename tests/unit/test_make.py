"""The choice of the Python with which `make setup` creates the environment, and the options of `make test`."""

import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import MEASURED, is_measured, is_random

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
(SUPPORTED,) = (line.split() for line in re.findall(r"^SUPPORTED := (.+)$", MAKEFILE, re.MULTILINE))
(PROBE,) = re.findall(r"^SERVES := (.+)$", MAKEFILE, re.MULTILINE)

# A fake Python for the Makefile: passes or fails its probe, copies itself as "environment", installs a fake uv,
# and logs its calls.
FAKE_PYTHON = """#!{sh}
echo "{name} $*" >> "{log}"
case "$1 $2" in
  "-c "*) exit {code} ;;
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") cp "{uv}" "${{0%/*}}/uv" ;;
esac
"""
FAKE_UV = """#!{sh}
echo "uv $*" >> "{log}"
exit {code}
"""


class Machine:
    """A separate PATH with the few tools that `make setup` uses and the Pythons that a test adds."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "path"
        self.path.mkdir()
        self.log = folder / "calls"
        self.venv = folder / "venv"
        self.uv = folder / "uv"
        self.add_uv(code=0)
        for tool in ("sh", "mkdir", "cp", "touch"):
            (self.path / tool).symlink_to(shutil.which(tool) or tool)

    def add(self, name: str, code: int = 0) -> None:
        """Add a Python whose probe ends with exit code `code`."""
        text = FAKE_PYTHON.format(sh=shutil.which("sh"), name=name, log=self.log, code=code, uv=self.uv)
        self._write(self.path / name, text)

    def add_uv(self, code: int) -> None:
        """Let the uv of environments end with exit code `code`."""
        self._write(self.uv, FAKE_UV.format(sh=shutil.which("sh"), log=self.log, code=code))

    def set_up(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `make setup` for an environment outside the project."""
        make = shutil.which("make")
        assert make is not None
        return subprocess.run(
            [make, "setup", f"VENV={self.venv}", *arguments],
            cwd=ROOT,
            env={"PATH": str(self.path)},  # without the variables of a make that runs the tests
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[str]:
        """Return the names and arguments of the programs that were called."""
        return self.log.read_text("utf-8").splitlines() if self.log.exists() else []

    def chosen(self) -> list[str]:
        """Return the names of the Pythons that created an environment."""
        return [call.split()[0] for call in self.calls() if " -m venv " in call]

    @staticmethod
    def _write(program: Path, text: str) -> None:
        program.write_text(text, "utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine without any Python."""
    return Machine(tmp_path)


def test_make_takes_the_newest_python(machine: Machine) -> None:
    """The newest supported Python on the PATH creates the environment."""
    for name in ("python3", "python3.11", "python3.13", "python3.12", "python3.10"):
        machine.add(name)
    result = machine.set_up()
    assert (0, ["python3.13"]) == (result.returncode, machine.chosen()), result.stderr


def test_make_skips_a_python_that_does_not_run(machine: Machine) -> None:
    """A version manager's shim for an inactive version, or a Python without ensurepip, is skipped."""
    machine.add("python3.14", code=127)
    machine.add("python3.13", code=1)
    machine.add("python3")
    result = machine.set_up()
    assert (0, ["python3"]) == (result.returncode, machine.chosen()), result.stderr


def test_make_takes_the_given_python(machine: Machine) -> None:
    """PYTHON=... takes precedence over the PATH."""
    machine.add("python3.14")
    machine.add("mine")
    result = machine.set_up("PYTHON=mine")
    assert (0, ["mine"]) == (result.returncode, machine.chosen()), result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"), [((), "none of python3.14"), (("PYTHON=python3.10",), "python3.10 ")]
)
def test_make_names_the_supported_pythons(machine: Machine, arguments: tuple[str, ...], named: str) -> None:
    """If no Python is usable, make fails with a message that names what was tried and what is supported."""
    machine.add("python3.10", code=1)
    machine.add("python3", code=1)
    result = machine.set_up(*arguments)
    assert (True, []) == (result.returncode > 0, machine.chosen())
    message = result.stderr.splitlines()[0]
    assert message.startswith(f"make: {named}")
    assert all(word in message for word in ("cannot set up", *SUPPORTED, "ensurepip", "PYTHON=")), message


@pytest.mark.parametrize(("code", "by"), [(0, "uv pip"), (2, "python3 -m pip")])
def test_pip_installs_what_uv_cannot(machine: Machine, code: int, by: str) -> None:
    """The locked packages and the project are installed by uv, which pip installs; if uv fails, all by pip."""
    machine.add("python3")
    machine.add_uv(code)
    result = machine.set_up()
    assert 0 == result.returncode, result.stderr
    by_pip = [call for call in machine.calls() if " -m pip install " in call]
    assert by_pip[0].endswith("--require-hashes -r requirements/uv.txt")
    assert (3 if code else 1) == len(by_pip)
    for installed in ("--require-hashes -r requirements/dev.txt", "--no-deps --no-build-isolation -e ."):
        assert [each for each in machine.calls() if each.endswith(installed)][-1].startswith(f"{by} install ")


@pytest.mark.parametrize(("versions", "code"), [(SUPPORTED, 0), (["3.1"], 1)])
def test_a_python_is_probed_for_its_version(versions: list[str], code: int) -> None:
    """The probe exits with 0 for a supported version, and with 1 for another."""
    probe = PROBE.replace("$(SUPPORTED)", " ".join(versions))
    assert code == subprocess.run([sys.executable, "-c", probe], check=False, timeout=60).returncode


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((), "--cov --numprocesses=3 --dist=worksteal"), (("ARGS=-k placing",), "-k placing")],
)
def test_coverage_is_required_only_of_the_whole_suite(arguments: tuple[str, ...], options: str) -> None:
    """`make test` measures coverage, and fails below the threshold in pyproject.toml; with ARGS it does not."""
    make = shutil.which("make")
    assert make is not None
    command = [make, "--dry-run", "test", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.splitlines()[-1].endswith(f"/python -m pytest {options}")


def test_the_tests_of_core_and_wire_are_measured_and_no_others() -> None:
    """The packages for which coverage is required are those whose tests coverage measures; each has such tests. A
    test of a command or of a simulated fleet is not measured, although it executes core, nor is one with sockets.
    """
    source = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["coverage"]["run"]["source"]
    assert source == [f"extproc/{package}" for package in MEASURED]
    unit = ROOT / "tests" / "unit"
    measured = {file.name for file in unit.glob("test_*.py") if is_measured(file)}
    assert {"test_placing.py", "test_wire_decode.py", "test_configuration.py"} <= measured
    assert measured.isdisjoint({"test_check_envoy.py", "test_evaluation.py", "test_planning_cost.py"})
    assert not is_measured(ROOT / "tests" / "grpc" / "test_streams.py")


def test_nothing_traces_a_test_that_is_not_measured() -> None:
    """Here, coverage is paused, also in a process of xdist."""
    assert "coverage" not in f"{type(sys.gettrace())}"


@settings(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.none())
def test_what_hypothesis_draws_does_not_count(request: pytest.FixtureRequest, drawn: None) -> None:
    """Coverage that depended on random inputs would be there in one run and not in the next."""
    assert is_random(request.node)


def test_what_is_written_down_counts(request: pytest.FixtureRequest) -> None:
    """A test without random inputs is not taken for one with them."""
    assert not is_random(request.node)
