"""`loop.py KIND TIMES`: exchanges in a loop, for `bench.instructions`; it also runs with the modules of 0.1.0."""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Run `released` or `learned` exchanges so many times."""
    kind, times = sys.argv[1], int(sys.argv[2])
    exchange, stream = _today(kind) if hasattr(import_module("bench.inside"), "Exchanges") else _as_0_1_0(kind)
    for _ in range(times):
        exchange(stream)


def _today(kind: str) -> tuple[Callable[[list[bytes]], object], list[bytes]]:
    exchanges = import_module("bench.inside").Exchanges("byteclass")
    return exchanges.exchange, getattr(exchanges, kind)


def _as_0_1_0(kind: str) -> tuple[Callable[[list[bytes]], object], list[bytes]]:
    """Return the loop of 0.1.0, whose own one decodes the first message twice."""
    exchanges: Any = import_module("bench.inside")._Exchanges("byteclass")  # noqa: SLF001  (public since)
    exchange_of, close = (
        import_module("extproc.core.exchange").Exchange,
        import_module("extproc.core.events").Close,
    )
    decoder, encoder = exchanges.decoder, exchanges.encoder

    def exchange(stream: list[bytes]) -> None:
        modes, first = decoder.first(stream[0])
        made = exchange_of(exchanges.router, modes)
        replies = [reply for event in (first, *map(decoder.next, stream[1:])) for reply in made.handle(event, 0.0)]
        made.end()
        for reply in replies:
            if type(reply) is not close:
                encoder.encode(reply)

    return exchange, getattr(exchanges, kind)


if __name__ == "__main__":
    main()
