"""Every command in the documents' shell blocks either runs here or has a reason why not."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from extproc.cli.main import _parser, main
from tests.unit.chart import CHART, HELM, NO_HELM, helm

ROOT = Path(__file__).parents[2]
PAGES = ("*.md", "docs/**/*.md", "deploy/**/*.md", "bench/*.md")
WORDS = ("dualpool", "make", "helm", "kubectl", "docker", "curl", "python")
# Why a command does not run in a test.
NOT_HERE = {
    "kubectl": "needs a cluster",
    "docker": "needs an engine",
    "curl": "needs a running Envoy or router",
    "python": "figures take minutes and a machine of their own",
    "dualpool demo": "tests/envoy/test_demo.py runs it",
    "dualpool evaluate": "takes minutes; tests/unit/test_evaluate*.py run its parts",
    "dualpool top": "shows a running router; its own tests run it",
    "dualpool serve": "tests/grpc/test_serve_command.py runs it",
}
# Options of dualpool commands that need a file or a server that only the commands' own tests create.
ELSEWHERE = ("--live", "--admin", "--trace", "--metrics", "paper", "-", "--simulate", "--router")


def commands() -> list[str]:
    """Return the commands of all shell blocks without comments; continued lines are joined."""
    found: dict[str, None] = {}
    for pattern in PAGES:
        for page in sorted(ROOT.glob(pattern)):
            text = page.read_text("utf-8").replace("\\\n", " ")
            blocks = re.findall(r"^( *)```(?:sh|bash|shell|console)?\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
            for _, block in [*blocks, *re.findall(r"^()((?: {4}\S.*\n)+)", text, re.MULTILINE)]:
                for line in block.splitlines():
                    command = re.sub(r"\s+#.*$|\s*[|>&].*$", "", line.strip().removeprefix("$ "))
                    if command.split(" ", 1)[0] in WORDS and command.isascii():  # isascii() leaves out drawings
                        found[" ".join(command.split())] = None
    return list(found)


COMMANDS = commands()
OURS = [command for command in COMMANDS if command.startswith("dualpool ")]


def test_commands_are_found() -> None:
    """The documents contain commands of every kind that is checked below."""
    assert {"dualpool", "make", "helm", "kubectl", "docker", "curl"} <= {each.split()[0] for each in COMMANDS}


@pytest.mark.parametrize("command", OURS)
def test_dualpool_accepts_the_commands_of_the_documents(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every `dualpool` command accepts the options that it is written with, and succeeds if it can run here."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dualpool.yaml").write_text("mode: shadow\n")
    (tmp_path / "body.json").write_text(
        '{"model": "m", "messages": [{"role": "user", "content": "How are you?"}]}'
    )
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "envoy.yaml").symlink_to(ROOT / "envoy" / "streamed.yaml")
    for name, kind in (("rds", "route.v3.RouteConfiguration"), ("cds", "cluster.v3.Cluster")):
        resource = {"@type": f"type.googleapis.com/envoy.config.{kind}", "name": "other"}
        (tmp_path / f"{name}.yaml").write_text(json.dumps({"resources": [resource]}))
    words = [
        each
        for word in shlex.split(command)[1:]
        for each in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]
    if "FILE" in words or "NAME" in words or "URL" in words:
        pytest.skip("a form, not a command")
    options = _parser(words).parse_args(words)
    reason = NOT_HERE.get(f"dualpool {options.command}")
    if reason is None and any(word in ELSEWHERE for word in words):
        reason = "needs what its own tests make"
    if reason is None:
        assert 0 == main(words)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("make ")])
def test_make_has_the_targets_that_the_documents_name(command: str) -> None:
    """Every `make` command names an existing target."""
    target = next(word for word in shlex.split(command)[1:] if "=" not in word)
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.skipif(HELM is None, reason=NO_HELM)
@pytest.mark.parametrize("command", [each for each in COMMANDS if each.startswith("helm ")])
def test_helm_accepts_the_commands_of_the_documents(command: str) -> None:
    """Every `helm install` in the documents can be rendered with its values."""
    words = [word for word in shlex.split(command)[2:] if word != "--create-namespace"]
    words[words.index("deploy/helm/dualpool")] = str(CHART)
    ran = helm("template", *words, "--kube-version", "1.34")
    assert 0 == ran.returncode, ran.stderr


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.split()[0] in NOT_HERE])
def test_others_name_files_that_exist(command: str) -> None:
    """Commands that need a cluster or an engine are at least checked for the project's files that they name."""
    named = re.findall(r"(?<![\w/.])(?:deploy|envoy|bench|docs)/[\w./-]+", command)
    assert [] == [name for name in named if not (ROOT / name.rstrip("/")).exists()]


def test_every_command_is_valid_shell() -> None:
    """No command breaks off in the middle of a quotation."""
    shell = shutil.which("sh")
    assert shell is not None
    for command in COMMANDS:
        ran = subprocess.run([shell, "-n"], input=command, capture_output=True, text=True, check=False)
        assert 0 == ran.returncode, command
