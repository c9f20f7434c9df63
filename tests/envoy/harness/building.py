"""Stacks that belong to one test, to be killed and misconfigured."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.envoy.harness.caller import Caller, Stack
from tests.envoy.harness.gateway import Document, Gateway
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.router import RouterProcess

__all__ = ["Build", "addresses"]


def addresses(router: RouterProcess, pools: Pools) -> dict[str, str]:
    """Return host:port by the cluster names of `envoy/`."""
    return {
        "pool_short": pools.short.url.removeprefix("http://"),
        "pool_long": pools.long.url.removeprefix("http://"),
        "dualpool": router.address,
    }


class Build:
    """Makes stacks for one test, and ends them after it."""

    def __init__(self, folder: Path, pools: Pools) -> None:
        self.callers: list[Caller] = []
        self._folder, self._pools = folder, pools
        self._ending = ExitStack()

    def __call__(
        self,
        mode: str,
        *,
        change: Callable[[Document], None] | None = None,
        pools: Pools | None = None,
        **settings: object,
    ) -> Caller:
        """Return a caller of a new stack: `change` edits Envoy's configuration, `settings` are the router's."""
        folder = self._folder / str(len(self.callers))
        folder.mkdir()
        router = RouterProcess(folder, **settings)
        self._ending.callback(router.kill)
        behind = pools or self._pools
        gateway = Gateway(mode, addresses(router, behind), folder, change)
        self._ending.callback(gateway.terminate)
        caller = Caller(Stack(gateway, router, behind))
        self._ending.callback(caller.close)
        self.callers.append(caller)
        return caller

    def end(self) -> None:
        """End what was started, last first."""
        self._ending.close()
