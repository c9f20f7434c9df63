"""The peers of comparisons: version 0.1.0 of the router, and a minimal router in Go."""

import shutil
import subprocess
from pathlib import Path

from grpc_tools import protoc

from bench.stack import Server, Stack
from extproc.core.errors import DualpoolError

__all__ = ["NO_GO", "MissingPeer", "minimal_go", "tree_of_0_1_0", "version_0_1_0"]

ROOT = Path(__file__).parents[1]
COMMIT = "bff051d"  # 0.1.0
NEEDED = ("extproc", "protos", "bench", "envoy")
GENERATED = Path("extproc", "state", "pb")
MINIMAL_GO = Path(__file__).parent / "minimal_go"
NO_GO = "no Go"
BUILDS_WITHIN_S = 500.0


class MissingPeer(DualpoolError):
    """A peer for comparison is not available."""


def version_0_1_0(stack: Stack) -> Server:
    """Start 0.1.0 with today's packages. Raises MissingPeer like `tree_of_0_1_0`."""
    return stack.router_of(tree_of_0_1_0(stack))


def tree_of_0_1_0(stack: Stack) -> Path:
    """Return a folder with 0.1.0, from the repository's history.

    Raises MissingPeer if the clone lacks that history.
    """
    tree = stack.folder / COMMIT
    if not tree.exists():
        command = ["git", "-C", str(ROOT), "archive", COMMIT, *NEEDED]
        try:
            found = subprocess.run(command, capture_output=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"").decode().strip() or str(error)
            raise MissingPeer(f"{' '.join(command)}: {said}; a clone with full history is needed") from error
        tree.mkdir()
        # Not tarfile: Debian 12's Python 3.11.2 cannot do without its unsafe defaults.
        subprocess.run(["tar", "-x", "-C", str(tree)], input=found, check=True)
        _generate(tree)
    return tree


def _generate(tree: Path) -> None:
    """Compile its .proto files as its build does."""
    out = tree / GENERATED
    out.mkdir()
    (out / "__init__.py").touch()
    for source in (tree / "protos").rglob("*.proto"):
        code = protoc.main(["protoc", f"-I{source.parent}", f"--python_out={out}", str(source)])
        if code != 0:
            raise MissingPeer(f"protoc failed with exit code {code} on {source}")


def minimal_go(stack: Stack) -> Server | None:
    """Build and start the router in minimal_go/; return None if Go is not installed.

    Its modules are pinned by go.sum and fetched through GOPROXY. Raises MissingPeer if it cannot be built.
    """
    go = shutil.which("go")
    if go is None:
        return None
    binary = stack.folder / "minimal-go"
    if not binary.exists():
        built = subprocess.run(
            [go, "build", "-trimpath", "-buildvcs=false", "-o", str(binary), "."],
            cwd=MINIMAL_GO, capture_output=True, text=True, timeout=BUILDS_WITHIN_S, check=False,
        )  # fmt: skip
        if built.returncode != 0:
            raise MissingPeer(f"{MINIMAL_GO} cannot be built:\n{built.stderr}")
    return stack.program("minimal-go", [str(binary)])
