"""The clients of one test: a unique path prefix and tenant identify its requests in logs, pools and state."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

import anthropic
import httpx
import openai

from extproc.emulator import ReceivedRequest
from tests.envoy.harness.gateway import Envoy
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import Pools
from tests.envoy.harness.router import RouterProcess
from tests.plain import NO_AUTHORITIES

__all__ = ["Caller", "Stack"]

CLIENT_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Stack:
    """Envoy, its router, and the pools behind it."""

    gateway: Envoy
    router: RouterProcess
    pools: Pools


@dataclass(frozen=True)
class Caller:
    """The clients of one test, and access to what became of their requests."""

    stack: Stack
    mark: str = field(default_factory=lambda: uuid4().hex)

    @property
    def root(self) -> str:
        """The path prefix of this test, before /v1."""
        return f"/{self.mark}"

    @cached_property
    def openai(self) -> openai.OpenAI:
        """The real client; never retries by itself, so that no error is hidden."""
        return openai.OpenAI(
            base_url=f"{self.stack.gateway.url}{self.root}/v1",
            api_key="secret-of-the-client",
            default_headers={"x-tenant": self.mark},
            max_retries=0,
            timeout=CLIENT_TIMEOUT_S,
            http_client=openai.DefaultHttpxClient(verify=NO_AUTHORITIES),
        )

    @cached_property
    def anthropic(self) -> anthropic.Anthropic:
        """The real client; never retries by itself."""
        return anthropic.Anthropic(
            base_url=f"{self.stack.gateway.url}{self.root}",
            api_key="secret-of-the-client",
            default_headers={"x-tenant": self.mark},
            max_retries=0,
            timeout=CLIENT_TIMEOUT_S,
            http_client=anthropic.DefaultHttpxClient(verify=NO_AUTHORITIES),
        )

    @cached_property
    def http(self) -> httpx.Client:
        """A plain client, for requests that the others would not send."""
        return self._client(http2=False)

    @cached_property
    def http2(self) -> httpx.Client:
        """A client that speaks HTTP/2 from the start of a connection."""
        return self._client(http2=True)

    def _client(self, *, http2: bool) -> httpx.Client:
        return httpx.Client(
            base_url=f"{self.stack.gateway.url}{self.root}",
            headers={"x-tenant": self.mark},
            timeout=CLIENT_TIMEOUT_S,
            verify=NO_AUTHORITIES,
            http1=not http2,
            http2=http2,
        )

    def close(self) -> None:
        """Close the connections of every client that was used."""
        for name in ("openai", "anthropic", "http", "http2"):
            if (client := self.__dict__.get(name)) is not None:
                client.close()

    def received(self) -> list[tuple[str, ReceivedRequest]]:
        """Return the requests that reached the pools, as (pool name, request), ordered by pool."""
        return self.stack.pools.received(self.mark)

    def access_log(self, entries: int = 1) -> list[dict[str, Any]]:
        """Wait for at least `entries` entries of this test in Envoy's access log; return them all."""
        log = self.stack.gateway.access_log
        eventually(lambda: len(log(self.mark)) >= entries, f"{entries} access log entries")
        return log(self.mark)

    def observations(self) -> int:
        """Return how many responses were learned from in this test's category."""
        return self.stack.router.observations(self.mark)
