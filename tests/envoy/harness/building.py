"""Stacks that belong to one test, which may kill and misconfigure them."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.envoy.harness.caller import Caller, Stack
from tests.envoy.harness.gateway import Document, Gateway
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.router import RouterProcess

__all__ = ["Build", "addresses"]


def addresses(router: str, pools: Pools) -> dict[str, str]:
    """Return host:port by cluster name in `envoy/`; `router` is the router's host:port."""
    return pools.clusters() | {"dualpool": router}


class Build:
    """Builds stacks for one test, and ends them after it."""

    def __init__(self, folder: Path, pools: Pools) -> None:
        self.callers: list[Caller] = []
        self._folder, self._pools = folder, pools
        self._ending = ExitStack()

    def __call__(
        self,
        configuration: str,
        /,
        *,
        change: Callable[[Document], None] | None = None,
        pools: Pools | None = None,
        router: RouterProcess | None = None,
        configured: Any = None,
        **settings: Any,
    ) -> Caller:
        """Return a caller of a new Envoy, whose configuration `change` edits.

        Envoy asks `router`, which is left running. Without one it gets a router of its own, with these `settings`
        and with `configured` as its pools.
        """
        folder = self._folder / str(len(self.callers))
        folder.mkdir()
        if router is None:
            router = RouterProcess(folder, **settings, **({"pools": configured} if configured else {}))
            self._ending.callback(router.kill)
        behind = pools or self._pools
        gateway = Gateway(configuration, addresses(router.address, behind), folder, change)
        self._ending.callback(gateway.terminate)
        caller = Caller(Stack(gateway, router, behind))
        self._ending.callback(caller.close)
        self.callers.append(caller)
        return caller

    def replace_router(self, caller: Caller, **settings: Any) -> Caller:
        """Start a new router with these `settings` on the old one's address; return a caller of the same Envoy."""
        folder = self._folder / f"{len(self.callers)}-again"
        folder.mkdir()
        old = caller.stack
        router = RouterProcess(folder, listen={"address": old.router.address}, **settings)
        self._ending.callback(router.kill)
        again = Caller(Stack(old.gateway, router, old.pools))
        self._ending.callback(again.close)
        self.callers.append(again)
        return again

    def end(self) -> None:
        """End everything that was started, in reverse order."""
        self._ending.close()
