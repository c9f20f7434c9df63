"""`dualpool state`: show, move, merge or reset learned state in a file, a shared store or a running router.

A running router accepts changes from callers that send its token; if it uses a shared store, it changes the store.
"""

import argparse
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

from extproc.cli.token import PAGE_ERRORS, add_token, authorized_request, bearer_of, page, why
from extproc.core.errors import ConfigurationError
from extproc.files import read_file

if TYPE_CHECKING:
    from extproc.core.estimator.protocol import LearnedState
    from extproc.core.estimator.terms import Terms
    from extproc.state.in_store import InStore

__all__ = ["add"]

CHANGES_WITHIN_S = 100
PLACE = "a file, store:CONFIG.yaml (the store that this configuration names), or http://ADMIN of a running router"
STORE, HTTP = "store:", ("http://", "https://")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "state",
        help="show, move, merge or reset what routers have learned",
        description="Shows or changes the learned state in a file, a store or a running router (docs/state.md).",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    show = actions.add_parser("show", help="show what was learned about each model")
    show.add_argument("place", metavar="PLACE", help=PLACE)
    show.add_argument("--json", action="store_true", help="print all of it as JSON instead of a table")
    add_token(show)
    show.set_defaults(run=_show)

    export = actions.add_parser("export", help="copy what was learned into a file")
    export.add_argument("place", metavar="PLACE", help=PLACE)
    export.add_argument("file", metavar="FILE", type=Path, help="the file to write")
    add_token(export)
    export.set_defaults(run=_export)

    into = actions.add_parser(
        "import", help="add a file's knowledge to a running router or a store, or copy it to an empty file"
    )
    into.add_argument("file", metavar="FILE", type=Path, help="the file to read")
    into.add_argument("place", metavar="PLACE", help=PLACE)
    add_token(into)
    into.set_defaults(run=_import)

    merge = actions.add_parser("merge", help="merge what several routers have learned separately into a file")
    merge.add_argument("places", nargs="+", metavar="PLACE", help=PLACE)
    merge.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    add_token(merge)
    merge.set_defaults(run=_merge)

    reset = actions.add_parser("reset", help="forget everything, or one model")
    reset.add_argument("place", metavar="PLACE", help=PLACE)
    reset.add_argument("--model", type=_model, help="forget only this model")
    add_token(reset)
    reset.set_defaults(run=_reset)

    undo = actions.add_parser("undo", help="restore the prices that a model had before they were replaced")
    undo.add_argument(
        "place", metavar="http://ADMIN", help="a running router; only it remembers the prices that were replaced"
    )
    undo.add_argument("--model", type=_model, required=True, help="its name")
    add_token(undo)
    undo.set_defaults(run=_undo)


def _model(name: str) -> str:
    if not name:  # probably an unset shell variable; forgetting everything requires leaving out the option
        raise argparse.ArgumentTypeError("'' given; allowed: the name of a model")
    return name


def _show(options: argparse.Namespace) -> int:
    from extproc.state.snapshot import to_json  # noqa: PLC0415  (other commands start faster without these)

    state = _read(options.place, bearer_of(options))
    print(to_json(state) if options.json else _as_table(state))
    return 0


def _export(options: argparse.Namespace) -> int:
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.snapshot import to_message  # noqa: PLC0415

    if options.place.startswith((STORE, *HTTP)):
        _write(options.file, to_message(_read(options.place, bearer_of(options))))
    else:
        _write(options.file, read_state(_file(options.place)))
    return 0


def _import(options: argparse.Namespace) -> int:
    from extproc.state.file import MAX_FILE_BYTES, read_state  # noqa: PLC0415
    from extproc.state.snapshot import from_message  # noqa: PLC0415

    message = read_state(options.file)
    if options.place.startswith(STORE):
        state = from_message(message)
        print(_in_store(options.place, lambda store: store.add(state)))
    elif options.place.startswith(HTTP):
        content = read_file(options.file, MAX_FILE_BYTES)
        print(_changed(f"{options.place.rstrip('/')}/state/import", bearer_of(options), content))
    else:
        path = _file(options.place)
        if path.exists() and read_state(path).estimator_kind:
            raise ConfigurationError(f"{path} already holds learned state; merge both, or reset it first")
        _write(path, message)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from extproc.core.estimator.merging import bounded, merged  # noqa: PLC0415
    from extproc.state.snapshot import to_message  # noqa: PLC0415

    token = bearer_of(options)
    states = [_read(place, token) for place in options.places]
    terms = _terms(states)
    _write(options.out, to_message(bounded(merged(states, terms), terms)))
    return 0


def _reset(options: argparse.Namespace) -> int:
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.pb import state_pb2  # noqa: PLC0415

    if options.place.startswith(STORE):
        print(_in_store(options.place, lambda store: store.forget(options.model or "")))
        return 0
    if options.place.startswith(HTTP):
        query = f"?{urlencode({'model': options.model})}" if options.model else ""
        print(_changed(f"{options.place.rstrip('/')}/state/reset{query}", bearer_of(options), b""))
        return 0
    path = _file(options.place)
    message = read_state(path)
    if options.model:
        for rows in (message.categories, message.models, message.outputs):
            for index in reversed(range(len(rows))):
                if rows[index].model == options.model:
                    del rows[index]
    _write(path, message if options.model else state_pb2.LearnedState())
    return 0


def _undo(options: argparse.Namespace) -> int:
    if not options.place.startswith(HTTP):
        raise ConfigurationError(
            f"{options.place}: only running routers remember replaced prices; give http://ADMIN"
        )
    query = urlencode({"model": options.model})
    print(_changed(f"{options.place.rstrip('/')}/state/undo?{query}", bearer_of(options), b""))
    return 0


def _read(place: str, token: str) -> "LearnedState":
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.snapshot import from_json, from_message  # noqa: PLC0415

    if place.startswith(STORE):
        of_store: LearnedState = _in_store(place, lambda store: store.read())
        return of_store
    if place.startswith(HTTP):
        return from_json(_fetch(place.rstrip("/") + "/state", token))
    return from_message(read_state(_file(place)))


def _file(place: str) -> Path:
    """Return the file that a place names. Raises ConfigurationError for an address of another kind."""
    if "://" in place:
        raise ConfigurationError(f"{place}: an address of this kind cannot be read; give {PLACE}")
    return Path(place)


def _in_store(place: str, act: "Callable[[InStore], Any]") -> Any:  # noqa: ANN401
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


def _terms(states: "list[LearnedState]") -> "Terms":
    from extproc.core.estimator.settings import EstimatorSettings  # noqa: PLC0415
    from extproc.core.estimator.terms import Terms  # noqa: PLC0415

    kind: Any = next((state.estimator_kind for state in states if state.estimator_kind), "byteclass")
    return Terms.of(EstimatorSettings(kind=kind))


def _as_table(state: "LearnedState") -> str:
    """Return a line for each model, and a line with totals."""
    if not state.estimator_kind:
        return "nothing was learned"
    lines = [f"{'model':40}{'responses':>12}{'weight':>10}{'q':>8}{'generation':>14}{'tenants, kinds':>16}"]
    names = {row.category.model for row in state.categories} | {row.category.model for row in state.outputs}
    models = {row.model: row for row in state.models}
    for name in sorted({*names, *models} - {""}):
        rows = [row for row in state.categories if row.category.model == name and row.category.key]
        model = models.get(name)
        responses = model.observations if model else sum(row.observations for row in rows)
        of_model = f"{model.weight:>10,.0f}{model.q:>8.2f}{model.generation:>14}" if model else f"{'':32}"
        lines.append(f"{name[:39]:40}{responses:>12,}{of_model}{len(rows):>16}")
    return "\n".join([*lines, f"estimator {state.estimator_kind}, {len(models)} models with prices"])


def _write(path: Path, message: Any) -> None:  # noqa: ANN401
    from extproc.state.file import write_atomically  # noqa: PLC0415
    from extproc.state.frame import framed  # noqa: PLC0415

    try:
        write_atomically(path, framed(message.SerializeToString()))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _changed(url: str, token: str, data: bytes) -> str:
    """Send a change to a running router; return its answer."""
    request = authorized_request(url, token)
    request.data = data
    request.add_header("Content-Type", "application/octet-stream")
    try:
        with urllib.request.urlopen(request, timeout=CHANGES_WITHIN_S) as response:  # noqa: S310  (the caller checked it)
            body: bytes = response.read()
    except HTTPError as error:
        message = "" if error.code == HTTPStatus.UNAUTHORIZED else error.read().decode(errors="replace").strip()
        raise ConfigurationError(f"{url}: {message or why(error)}") from error
    except PAGE_ERRORS as error:
        raise ConfigurationError(f"{url}: {why(error)}") from error
    return body.decode(errors="replace").strip()


def _fetch(url: str, token: str) -> bytes:
    try:
        return page(url, token)
    except PAGE_ERRORS as error:
        raise ConfigurationError(f"{url}: {why(error)}") from error
