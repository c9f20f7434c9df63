"""Checks that go beyond the types of the settings: addresses, names and combinations that would not work."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from extproc.config.header_names import check_header_name
from extproc.config.ports import MAX_PORT, port_of, taken_twice
from extproc.config.schema import Configuration, ListenSettings
from extproc.core.errors import ConfigurationError, shown
from extproc.core.placing.policy import Pool, Pools
from extproc.core.placing.pool import Endpoints, EndpointTls
from extproc.state.settings import LEAST_KEPT_INTERVALS, StoreSettings

__all__ = ["check", "is_id"]

_STORE = re.compile(
    r"rediss?://(\[[0-9a-fA-F:.]+\]|[^][/?#@:\s]+)(:[0-9]+)?(/[0-9]*)?|unix:///[^?#@\s]+(\?db=[0-9]+)?"
)
_STORES = "redis://host:port/number, rediss://host:port/number, unix:///path"
# On Linux, where sockaddr_un holds 108 bytes including the terminating NUL.
MAX_SOCKET_PATH_BYTES = 107
# The next number means "unchanged" (chown(2)).
MAX_ID = (1 << 32) - 2


def check(configuration: Configuration, faulty: Collection[str] = ()) -> Iterator[str]:
    """Yield a sentence for each fault; the settings in `faulty` are already known to be wrong."""
    yield from _pools(configuration.pools)
    if not any(field.partition("[")[0] == "pools" for field in faulty):
        yield from _endpoints(configuration)
    yield from _listen(configuration.listen)
    yield from _address("admin.address", configuration.admin.address)
    if configuration.admin.probes_address:
        yield from _address("admin.probes_address", configuration.admin.probes_address)
    yield from taken_twice(configuration)
    if configuration.state.path:
        yield from _state_path(configuration.state.path)
    if configuration.state.store is not None:
        yield from _store(configuration.state.store)
    names = {f"headers.{key}": value for key, value in asdict(configuration.headers).items()}
    if configuration.tenant_header:
        names["tenant_header"] = configuration.tenant_header
    names = {field: name for field, name in names.items() if field not in faulty}
    for field, name in names.items():
        yield from check_header_name(field, name, is_set=field != "tenant_header")
    for name in dict.fromkeys(names.values()):
        same = [field for field in names if names[field] == name]
        if len(same) > 1:
            yield f"{' and '.join(same)}: {shown(name)} given for each; allowed: names that differ from each other"


def _pools(pools: Sequence[Pool]) -> Iterator[str]:
    try:
        Pools(pools)
    except ConfigurationError as error:
        yield from error.sentences


def _endpoints(configuration: Configuration) -> Iterator[str]:
    """Reject servers that cannot be asked, and spillover that could never know a pool's load."""
    for index, pool in enumerate(configuration.pools):
        if (where := pool.endpoints) is None:
            continue
        if not (where.urls or where.dns or where.file):
            yield f"pools[{index}].endpoints: none given; allowed: some of urls, dns and file, or no `endpoints`"
        yield from _secrets(f"pools[{index}].endpoints", where)
        urls = [(f"urls[{number}]", url) for number, url in enumerate(where.urls)]
        for name, url in [*urls, ("dns", where.dns)]:
            if not _has_port(url):
                yield (
                    f"pools[{index}].endpoints.{name}: {shown(url)} given; "
                    f"allowed: a host, or host:port, port 1 to {MAX_PORT}, IPv6 hosts in brackets"
                )
    asked = sum(pool.endpoints is not None for pool in configuration.pools)
    if configuration.spill.enabled and asked < 2:  # noqa: PLR2004
        yield "spill.enabled: true given; it needs at least two pools with endpoints"


def _secrets(field: str, where: Endpoints) -> Iterator[str]:
    """Reject what would make all queries fail: two keys, a certificate without its key or vice versa, and https://
    with a DNS name but no server name to verify.
    """
    tls = where.tls or EndpointTls()
    if where.api_key_file and where.api_key_variable:
        yield f"{field}: api_key_file and api_key_variable given; allowed: one of them"
    if bool(tls.certificate_file) != bool(tls.private_key_file):
        yield f"{field}.tls: one of certificate_file and private_key_file given; allowed: both or none"
    if where.dns.startswith("https://") and not tls.server_name:
        yield f"{field}.dns: {shown(where.dns)} given; https:// requires tls.server_name"


def _has_port(url: str) -> bool:
    """Return whether a URL's port is valid; no port is valid, too."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _state_path(path: str) -> Iterator[str]:
    """Reject a path that is not the name of a file: the state is first written to a file next to it."""
    if PurePosixPath(path).name in ("", "..") or path.endswith("/"):
        yield f"state.path: {shown(path)} given; allowed: the name of a file in an existing directory"


def _listen(settings: ListenSettings) -> Iterator[str]:
    yield from _listen_address(settings.address)
    yield from _owner(settings.socket_owner)
    if settings.health_address:
        yield from _address("listen.health_address", settings.health_address)


def _listen_address(address: str) -> Iterator[str]:
    path = address.removeprefix("unix:")
    if path == address:
        yield from _address("listen.address", address)
    elif PurePosixPath(path).name in ("", "..") or address.endswith("/"):
        yield f"listen.address: {shown(address)} given; allowed: host:port, or unix:/path"
    elif len(path.encode()) > MAX_SOCKET_PATH_BYTES:
        yield f"listen.address: {shown(address)} given; a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes"


def is_id(name: str) -> bool:
    """Return whether a user or group is given by its number."""
    return name.isascii() and name.isdecimal()


def _owner(owner: str) -> Iterator[str]:
    """Reject numbers that are no IDs."""
    for name in owner.split(":"):
        if is_id(name) and not (len(name) <= len(str(MAX_ID)) and int(name) <= MAX_ID):
            yield f"listen.socket_owner: {shown(owner)} given; allowed: names, or numbers from 0 to {MAX_ID}"


def _store(settings: StoreSettings) -> Iterator[str]:
    """Reject an invalid address; a password in it, which /config would show; a query in it, which could turn off
    the client's certificate verification; and a lifetime so short that data could expire between two writes.
    """
    if _STORE.fullmatch(settings.url) is None or not _has_port(settings.url):
        if "@" in settings.url:
            yield (
                "state.store.url: contains a user or password; "
                "allowed: state.store.username and password_file for them"
            )
        elif "?" in settings.url:
            yield "state.store.url: contains a query; allowed: the settings of state.store, or unix:///path?db=1"
        else:
            yield f"state.store.url: {shown(settings.url)} given; allowed: {_STORES}"
    if settings.keep_s < LEAST_KEPT_INTERVALS * settings.every_s:
        yield (
            f"state.store.keep_s: {settings.keep_s:g} given; "
            f"allowed: at least {LEAST_KEPT_INTERVALS} times state.store.every_s, {settings.every_s:g}"
        )


def _address(field: str, address: str) -> Iterator[str]:
    """Reject anything but a host and a port; gRPC would take a port above 65535 modulo 65536."""
    host = address.rpartition(":")[0]
    ambiguous = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or ambiguous or port_of(address) is None:
        yield f"{field}: {shown(address)} given; allowed: host:port, port 0 to {MAX_PORT}, IPv6 hosts in brackets"
