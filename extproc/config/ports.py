"""Ports that one router would have to take twice: the kernel says so only when it starts, if at all.

gRPC shares its ports (SO_REUSEPORT), so that two of its own on one port is no error to anybody, and half of the
connections end where they are not meant to.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from extproc.config.schema import Configuration
from extproc.core.errors import shown

__all__ = ["MAX_PORT", "port_of", "taken_twice"]

MAX_PORT = 65_535
# Those of both kinds: a socket of IPv6 takes the connections of IPv4 with its own.
EVERY_ADDRESS = ("[::]", "*")
EVERY_ADDRESS_OF_IPV4 = "0.0.0.0"  # noqa: S104  (what a configuration may say)


@dataclass(frozen=True, slots=True)
class _Listener:
    setting: str
    address: str
    host: str
    first: int
    ports: int

    @property
    def last(self) -> int:
        return self.first + self.ports - 1


def port_of(address: str) -> int | None:
    """Return the port of host:port, None where there is none. gRPC would take one over 65535 modulo 65536."""
    port = address.rpartition(":")[2]
    return int(port) if re.fullmatch("[0-9]{1,5}", port) and int(port) <= MAX_PORT else None


def taken_twice(configuration: Configuration, workers: int = 1) -> Iterator[str]:
    """Yield a sentence for each port that two would get, and for too few; each worker has ports of its own."""
    seen: list[_Listener] = []
    for each in _listeners(configuration, workers):
        if each.last > MAX_PORT:
            needed = f"{workers} workers need as many ports, up to {MAX_PORT}"
            yield f"{each.setting}: port {each.first} given; {needed}"
        for other in seen:
            shared = max(each.first, other.first)
            if shared > min(each.last, other.last) or not _meet(each.host, other.host):
                continue
            if workers == 1:
                yield f"{each.setting}: {shown(each.address)} given; allowed: another port than {other.setting}'s"
            else:
                yield (
                    f"{each.setting}: port {each.first} given, with {workers} workers on as many ports each; "
                    f"port {shared} is also one of {other.setting}"
                )
        seen.append(each)


def _listeners(configuration: Configuration, workers: int) -> Iterator[_Listener]:
    """Yield what names a fixed port; what is no address is told of elsewhere."""
    listen, admin = configuration.listen, configuration.admin
    settings = {
        "listen.address": (listen.address, workers),
        "listen.health_address": (listen.health_address, workers),
        "admin.address": (admin.address, 1),
        "admin.probes_address": (admin.probes_address, 1),
    }
    for setting, (address, ports) in settings.items():
        first = None if address.startswith("unix:") else port_of(address)
        if first:
            yield _Listener(setting, address, address.rpartition(":")[0], first, ports)


def _meet(host: str, other: str) -> bool:
    """Tell whether two hosts have an address in common, as far as their text says."""
    if host == other or host in EVERY_ADDRESS or other in EVERY_ADDRESS:
        return True
    return (host == EVERY_ADDRESS_OF_IPV4 and "[" not in other) or (
        other == EVERY_ADDRESS_OF_IPV4 and "[" not in host
    )
