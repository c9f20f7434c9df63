"""Where `dualpool state` finds learned state: in a file, in a shared store, or in a running router."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extproc.cli.token import PAGE_ERRORS, authorized_request, page, why
from extproc.core.errors import ConfigurationError
from extproc.fetching import RequestRefused, about_token, fetched

if TYPE_CHECKING:
    from extproc.core.estimator.protocol import LearnedState
    from extproc.state.in_store import InStore

__all__ = ["HTTP", "PLACE", "STORE", "changed", "file_of", "in_store", "read", "write"]

CHANGES_WITHIN_S = 100
PLACE = "a file, store:CONFIG.yaml (the store that this configuration names), or http://ADMIN of a running router"
STORE, HTTP = "store:", ("http://", "https://")
_HOST_AND_PORT = re.compile(r"(\[[^\]/]+\]|[^:/]+):\d+/?")


def read(place: str, token: str) -> "LearnedState":
    """Return what is learned at a place. Raises ConfigurationError if it cannot be read."""
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.snapshot import from_json, from_message  # noqa: PLC0415

    if place.startswith(STORE):
        of_store: LearnedState = in_store(place, lambda store: store.read())
        return of_store
    if place.startswith(HTTP):
        return from_json(_fetch(place.rstrip("/") + "/state", token))
    return from_message(read_state(file_of(place)))


def file_of(place: str) -> Path:
    """Return the file that a place names. Raises ConfigurationError for an address of another kind."""
    if "://" in place or _HOST_AND_PORT.fullmatch(place):
        raise ConfigurationError(f"{place}: an address of this kind cannot be read; give {PLACE}")
    return Path(place)


def in_store(place: str, act: "Callable[[InStore], Any]") -> Any:  # noqa: ANN401
    """Return the result of `act`, called with the store that a configuration names."""
    from extproc.config.loading import load  # noqa: PLC0415
    from extproc.state.changing import NotDone  # noqa: PLC0415
    from extproc.state.in_store import InStore  # noqa: PLC0415

    configuration = load(Path(place.removeprefix(STORE)))
    settings = configuration.state.store
    if settings is None:
        raise ConfigurationError(f"{place}: this configuration has no state.store")
    try:
        return act(InStore(settings, configuration.estimator))
    except NotDone as error:
        raise ConfigurationError(f"{place}: {error}") from error


def write(path: Path, message: Any) -> None:  # noqa: ANN401
    """Write learned state, a protobuf message, to a file. Raises ConfigurationError if that fails."""
    from extproc.state.file import write_atomically  # noqa: PLC0415
    from extproc.state.frame import framed  # noqa: PLC0415

    try:
        write_atomically(path, framed(message.SerializeToString()))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def changed(url: str, token: str, data: bytes) -> str:
    """Send a change to a running router; return its answer."""
    request = authorized_request(url, token)
    request.data = data
    request.add_header("Content-Type", "application/octet-stream")
    try:
        with fetched(request, CHANGES_WITHIN_S) as response:
            body: bytes = response.read()
    except RequestRefused as error:
        message = about_token(error, token) or error.text or why(error, token)
        raise ConfigurationError(f"{url}: {message}") from error
    except PAGE_ERRORS as error:
        raise ConfigurationError(f"{url}: {why(error, token)}") from error
    return body.decode(errors="replace").strip()


def _fetch(url: str, token: str) -> bytes:
    try:
        return page(url, token)
    except PAGE_ERRORS as error:
        raise ConfigurationError(f"{url}: {why(error, token)}") from error
