"""Unix sockets: exclusive use of the path, permissions, and the owner."""

import errno
import grp
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from extproc.config.checks import is_id
from extproc.config.schema import ListenSettings
from extproc.core.errors import ConfigurationError

__all__ = ["bound_as_configured"]

_OWNER_ONLY = 0o177
_UNCHANGED = -1


@contextmanager
def bound_as_configured(settings: ListenSettings) -> Iterator[None]:
    """Refuse a path that another process serves; set mode and owner of the socket that the block binds.

    gRPC unlinks an existing file at the path: a second process would silently take over the first one's address.
    Raises ConfigurationError; does nothing for other addresses.
    """
    if not settings.address.startswith("unix:"):
        yield
        return
    path = Path(settings.address.removeprefix("unix:").removeprefix("//"))
    if _is_served(path):
        raise ConfigurationError(
            f"listen.address: {settings.address!r} cannot be bound: another process serves it"
        )
    before = os.umask(_OWNER_ONLY) if settings.socket_mode else None
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)
    try:
        if settings.socket_owner:
            user, _, group = settings.socket_owner.partition(":")
            uid = _id(user, lambda name: pwd.getpwnam(name).pw_uid)
            os.chown(path, uid, _id(group, lambda name: grp.getgrnam(name).gr_gid))
        if settings.socket_mode:
            path.chmod(int(settings.socket_mode, 8))
    except (OSError, LookupError, ValueError) as error:
        raise ConfigurationError(
            f"listen.socket_owner: {settings.socket_owner!r}, listen.socket_mode: {settings.socket_mode!r} given; "
            f"they cannot be applied to {settings.address!r}: {error}"
        ) from error


def _is_served(path: Path) -> bool:
    """Return whether a process has a socket at a path. It need not accept: EAGAIN says that its queue is full,
    EPROTOTYPE that its socket takes datagrams.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN, errno.EPROTOTYPE)


def _id(name: str, id_of: Callable[[str], int]) -> int:
    """Return the ID of a user or group that is given by name or number. Raises LookupError."""
    if not name:
        return _UNCHANGED
    return int(name) if is_id(name) else id_of(name)
