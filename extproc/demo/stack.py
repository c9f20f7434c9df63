"""The demo's processes, started in the order of their dependencies and stopped in reverse."""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from extproc.core.placing.policy import Pool
from extproc.demo.gateway import Gateway
from extproc.demo.processes import Child
from extproc.demo.workload import MODEL
from extproc.fetching import fetched

__all__ = ["LONG_POOL_TOKENS", "SHORT_POOL", "Stack"]

# The context is a quarter longer than the threshold, so that requests near it fit despite errors of the estimate.
SHORT_POOL = Pool("short", 8_192, 10_240)
LONG_POOL_TOKENS = 65_536
# Fast enough for a short demo, slow enough that requests visibly run concurrently.
SPEEDS = ("--prefill-tokens-per-s", "400000", "--decode-tokens-per-s", "600", "--median-completion-tokens", "50")
# The system chooses the ports; nothing has to be drained when the demo ends. Client, Envoy, router and pools share
# one machine, so a body may take longer to arrive than the default 150 ms, after which it counts as a slow upload;
# Envoy's own limit is 500 ms.
ROUTER_CONFIGURATION = f"""\
mode: enforce
listen: {{address: "127.0.0.1:0"}}
admin: {{address: "127.0.0.1:0"}}
pools:
  - {{name: short, max_budget_tokens: {SHORT_POOL.max_budget_tokens}, max_model_len: {SHORT_POOL.max_model_len}}}
  - {{name: long, max_budget_tokens: {LONG_POOL_TOKENS}}}
exchange: {{deadline_ms: 400}}
drain_s: 0
"""


class Stack:
    """Two pools, the router and Envoy, running. Raises StartFailed after stopping the processes already started.

    As a context manager, it stops all processes at the end. The folder with the logs is kept after an exception
    (not after Ctrl-C), or if `keep_logs` was set.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dualpool-demo-"))
        self.keep_logs = False
        self.children: list[Child] = []
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end()
        failed = kind is not None and issubclass(kind, Exception)
        if not (failed or self.keep_logs):
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def addresses(self) -> Mapping[str, str]:
        """The addresses of all parts, under the names to display."""
        return {
            "Envoy": self.gateway.url,
            "Envoy's admin": self.gateway.admin_url,
            "short pool": self.short_url,
            "long pool": self.long_url,
            "router": self.router["grpc"],
            "live page": f"http://{self.router['admin']}",
            "logs": str(self.folder),
        }

    def learned(self) -> dict[str, float]:
        """Return the bytes per token that the router has learned, by category; empty if it does not answer."""
        try:
            with fetched(f"http://{self.router['admin']}/state", 30) as response:
                categories = json.load(response).get("categories", [])
        except OSError:
            return {}
        return {each["key"]: each["bytes_per_token"] for each in categories if each["model"] == MODEL}

    def end(self) -> None:
        """Stop all processes, the last started first; a second call does nothing."""
        with ExitStack() as ending:
            for child in self.children:
                ending.callback(child.end)
            for child in reversed(self.children):
                child.terminate()
        self.children.clear()

    def _start(self) -> None:
        # One request asks for a fault. The long pool ignores that, so it can serve the retry of the request.
        short = self._run("pool-short", _emulator("short", SHORT_POOL.context_tokens, "--faults"))
        long = self._run("pool-long", _emulator("long", LONG_POOL_TOKENS))
        file = self.folder / "router.yaml"
        file.write_text(ROUTER_CONFIGURATION)
        router = self._run("router", _own_command("serve", "--config", str(file)))
        self.short_url = short.wait_for(lambda: _listening(short), "address")
        self.long_url = long.wait_for(lambda: _listening(long), "address")
        self.router = router.wait_for(lambda: _serving(router), "address")
        clusters = {
            "pool_short": self.short_url.removeprefix("http://"),
            "pool_long": self.long_url.removeprefix("http://"),
            "dualpool": self.router["grpc"],
        }
        self.gateway = Gateway(clusters, self.folder, self.children)

    def _run(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command, self.folder)
        self.children.append(child)
        return child


def _own_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "extproc.cli.main", *arguments]


def _emulator(name: str, max_model_len: int, *more: str) -> list[str]:
    shape = ("--model", MODEL, "--max-model-len", str(max_model_len), "--name", name)
    return _own_command("emulate", *shape, *SPEEDS, *more)


def _listening(child: Child) -> str | None:
    """Return the URL that an emulated pool listens on, once its log has it."""
    _, found, rest = child.log.read_text("utf-8", errors="replace").partition("listening on ")
    url, ended, _ = rest.partition("\n")
    return url if found and ended else None


def _serving(child: Child) -> dict[str, Any] | None:
    """Return the router's log entry with the addresses it serves, once it is written."""
    for line in child.log.read_text("utf-8", errors="replace").splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            entry: dict[str, Any] = json.loads(line)
            if entry.get("message") == "serving":
                return entry
    return None
