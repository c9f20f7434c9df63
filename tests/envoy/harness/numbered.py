"""Two pools that read every body whole and say what of it arrived (bench/numbered_pool.py), as processes."""

import sys
from pathlib import Path

from tests.envoy.harness.polling import eventually
from tests.envoy.harness.process import ManagedProcess

__all__ = ["NumberedPools"]


class NumberedPools:
    """Short and long, listening; `addresses` are host:port by the cluster names of `envoy/`."""

    def __init__(self, folder: Path) -> None:
        self._processes = [
            ManagedProcess(name, [sys.executable, "-m", "bench.numbered_pool", name], folder)
            for name in ("short", "long")
        ]
        self.addresses = {f"pool_{process.name}": _address(process) for process in self._processes}

    def stop(self) -> None:
        """End both."""
        for process in self._processes:
            process.kill()


def _address(process: ManagedProcess) -> str:
    return eventually(lambda: process.out.read_text().partition("\n")[0], f"pool {process.name} listens")
