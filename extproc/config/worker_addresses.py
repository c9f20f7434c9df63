"""The settings that differ per worker: its addresses, its state file, and its part of the learning budget.

Each worker listens on its own port, from the configured one upwards, or on its own Unix socket.

Rejected: one port for all workers (SO_REUSEPORT). The kernel distributes connections, and Envoy opens only one per
thread and endpoint: with so few, some workers would get none, and a connection never moves to another worker.
"""

from dataclasses import replace
from pathlib import PurePosixPath

from extproc.config.ports import taken_twice
from extproc.config.schema import Configuration, ListenSettings
from extproc.core.errors import ConfigurationError

__all__ = ["check_room", "listen_settings_of", "of_worker"]


def of_worker(configuration: Configuration, number: int, workers: int) -> Configuration:
    """Return the configuration of worker `number`, with its own addresses and state file.

    It gets its part of the router's learning budget, as it gets its part of the traffic. While a worker is being
    replaced, its part is not given to the others: it is back within seconds. `max_streams` is not divided:
    it holds for each worker, as does the gateway's `max_requests` (docs/envoy.md).
    """
    path = configuration.state.path
    state = replace(configuration.state, path=_numbered(path, number) if path else "")
    whole = configuration.learning
    part = replace(
        whole, messages_per_s=whole.messages_per_s / workers, burst_messages=whole.burst_messages / workers
    )
    listen = listen_settings_of(configuration.listen, number)
    return replace(configuration, listen=listen, state=state, learning=part)


def listen_settings_of(listen: ListenSettings, number: int) -> ListenSettings:
    """Return the addresses that worker `number`, counted from 0, has to bind."""
    health = _of_worker(listen.health_address, number) if listen.health_address else ""
    return replace(listen, address=_of_worker(listen.address, number), health_address=health)


def check_room(configuration: Configuration, workers: int) -> None:
    """Raise ConfigurationError if two listeners would get the same port, or a worker would get none."""
    for sentence in taken_twice(configuration, workers):
        raise ConfigurationError(sentence)


def _of_worker(address: str, number: int) -> str:
    if address.startswith("unix:"):
        return f"unix:{_numbered(address.removeprefix('unix:'), number)}"
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + number if int(port) else 0}"


def _numbered(name: str, number: int) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
