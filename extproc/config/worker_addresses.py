"""What each worker has for itself: where it listens, its file, and its part of what one router may spend.

It listens on its own port, from the configured one upwards, or on a Unix socket of its own.

Rejected: one port for all (SO_REUSEPORT). The kernel deals out connections, of which Envoy has one for each of its
threads and endpoints: with few of them some workers would get none, and a connection stays where it once was.
"""

from dataclasses import replace
from pathlib import PurePosixPath

from extproc.config.ports import taken_twice
from extproc.config.schema import Configuration, ListenSettings
from extproc.core.errors import ConfigurationError

__all__ = ["check_room", "listen_settings_of", "of_worker"]


def of_worker(configuration: Configuration, number: int, workers: int) -> Configuration:
    """Return the configuration of the worker of a number: it listens, and keeps what it learns, by itself.

    Of the messages that one router may learn from it gets its part, as it does of the traffic. Nobody gets the
    part of a worker that is being replaced: it is back within seconds. Streams are limited for each: so are the
    gateway's places for them (docs/envoy.md).
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
    """Return what the worker of a number, from 0 on, is to bind."""
    health = _of_worker(listen.health_address, number) if listen.health_address else ""
    return replace(listen, address=_of_worker(listen.address, number), health_address=health)


def check_room(configuration: Configuration, workers: int) -> None:
    """Raise ConfigurationError where two would get the same port, or one none."""
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
