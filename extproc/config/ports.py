"""Detection of ports that one router would bind twice: the kernel reports this only at the start, if at all.

gRPC binds with SO_REUSEPORT: two gRPC servers on one port cause no error, but half the connections go wrong.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from extproc.config.schema import Configuration
from extproc.core.errors import shown

__all__ = ["MAX_PORT", "port_of", "taken_twice"]

MAX_PORT = 65_535
# All addresses of both families: an IPv6 socket accepts IPv4 connections, too.
EVERY_ADDRESS = ("[::]", "*")
EVERY_ADDRESS_OF_IPV4 = "0.0.0.0"  # noqa: S104  (a configuration may contain it)


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
    """Return the port of host:port, None if it is not valid: gRPC would take one above 65535 modulo 65536."""
    port = address.rpartition(":")[2]
    return int(port) if re.fullmatch("[0-9]{1,5}", port) and int(port) <= MAX_PORT else None


def taken_twice(configuration: Configuration, workers: int = 1) -> Iterator[str]:
    """Yield a sentence for each port that two listeners would share, and for each range that exceeds MAX_PORT.

    Each worker has its own ports, in ascending order from the configured ones.
    """
    seen: list[_Listener] = []
    for each in _listeners(configuration, workers):
        if each.last > MAX_PORT:
            needed = f"{workers} workers need {workers} consecutive ports, up to {MAX_PORT}"
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
    """Yield the settings that name a fixed port; invalid addresses are reported elsewhere."""
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
    """Return whether two hosts have an address in common, judged by their text alone."""
    if host == other or host in EVERY_ADDRESS or other in EVERY_ADDRESS:
        return True
    return EVERY_ADDRESS_OF_IPV4 in (host, other) and "[" not in host + other
