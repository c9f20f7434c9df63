"""Two pools, as processes, that read every body to its end and report what arrived (bench/numbered_pool.py)."""

import sys
from pathlib import Path

from tests.envoy.harness.polling import eventually
from tests.envoy.harness.process import ManagedProcess

__all__ = ["NumberedPools"]


class NumberedPools:
    """The pools `short` and `long`, running; `addresses` are host:port by cluster name in `envoy/`."""

    def __init__(self, folder: Path) -> None:
        self._processes = [
            ManagedProcess(name, [sys.executable, "-m", "bench.numbered_pool", name], folder)
            for name in ("short", "long")
        ]
        self.addresses = {f"pool_{process.name}": _address(process) for process in self._processes}

    def stop(self) -> None:
        """End both pools."""
        for process in self._processes:
            process.kill()


def _address(process: ManagedProcess) -> str:
    return eventually(lambda: process.out.read_text().partition("\n")[0], f"pool {process.name} listens")
