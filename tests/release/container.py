"""Runs the build stage of deploy/Dockerfile step by step without a container engine, and then its router.

The steps are read from the file and run in a separate folder: `/opt`, `/src` and `/wheel` become folders in it,
and `python` is the interpreter that runs this. What is installed is made read-only, and run as the image's user if
the current user may switch to it and it may execute Python. Exit code 1: a step failed.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
USER = 65532
CONFIGURATION = "listen: {address: '127.0.0.1:0'}\nadmin: {address: '127.0.0.1:%d'}\ndrain_s: 0\n"


def main() -> int:
    """Build as the Dockerfile does, then serve and check the health; return the exit code."""
    folder = Path(sys.argv[1]).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "src").mkdir(parents=True)
    for step in steps():
        print(step.splitlines()[0][:100], flush=True)
        words = step.split()
        if words[0] == "COPY":
            copy(words[1:-1], folder / "src" / words[-1])
        else:
            run(step.removeprefix("RUN "), folder)
    if list((folder / "opt" / "dualpool" / "bin").glob("pip*")):
        print("pip is still there")
        return 1
    return serve(folder)


def steps() -> list[str]:
    """Return the COPY and RUN instructions of the first stage, each on one line."""
    text = (ROOT / "deploy" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    stage = re.split(r"^FROM .*$", text, flags=re.MULTILINE)[1]
    return [line for line in stage.splitlines() if line.startswith(("COPY ", "RUN "))]


def copy(sources: list[str], target: Path) -> None:
    """Copy files, or the content of folders, into a folder, as COPY does; generated code is left out."""
    for name in sources:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "pb")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(source, target)


def run(command: str, folder: Path) -> None:
    """Run a step with its absolute paths moved into `folder`. Raises CalledProcessError."""
    moved = re.sub(r"(?<![\w.])/(opt|src|wheel)\b", lambda path: f"{folder}/{path[1]}", command)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
    subprocess.run(["/bin/sh", "-e", "-c", moved], cwd=folder / "src", env=environment, check=True)


def serve(folder: Path) -> int:
    """Run the router as the image's user on read-only files until its health command succeeds."""
    installed = folder / "opt" / "dualpool"
    for path in [installed, *installed.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    file = folder / "dualpool.yaml"
    file.write_text(CONFIGURATION % free_port(), "utf-8")
    user = other_user(installed / "bin" / "python")
    environment = {"PATH": str(installed / "bin"), "PYTHONDONTWRITEBYTECODE": "1"}
    program = str(installed / "bin" / "dualpool")
    command = [program, "serve", "--config", str(file)]
    router = subprocess.Popen(command, env=environment, cwd="/", **user)
    try:
        for _ in range(60):
            check = subprocess.run([program, "health", "--config", str(file)], env=environment, check=False)
            if check.returncode == 0:
                return 0
            time.sleep(0.5)
        return 1
    finally:
        router.terminate()
        router.terminate()
        router.wait(60)


def other_user(python: Path) -> dict[str, Any]:
    """Return the arguments that run a process as the image's user; none if that is not possible here."""
    user: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": ()}
    try:
        subprocess.run([python, "-c", ""], cwd="/", check=True, **user)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"not run as {USER}: {error}")
        return {}
    return user


def free_port() -> int:
    """Return a port that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
