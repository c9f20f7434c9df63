"""`dualpool state`: what was learned, in a file, in the shared store or a running router: shown, moved, merged.

A running router is only looked at. What it believes changes through its store, where it looks for itself, or with
its file, which it reads when it starts.
"""

import argparse
import asyncio
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extproc.cli.token import add_token, asking, bearer_of, why
from extproc.core.errors import ConfigurationError

if TYPE_CHECKING:
    from extproc.core.estimator.protocol import LearnedState
    from extproc.core.estimator.tables import Terms
    from extproc.state.store import Store

__all__ = ["add"]

TIMEOUT_S = 10
PLACE = "a file, store:CONFIG.yaml (the store that this configuration names), or http://ADMIN of a running router"
WRITTEN = "a file, or store:CONFIG.yaml (the store that this configuration names)"
STORE, HTTP = "store:", ("http://", "https://")


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser("state", help="show, move, merge or reset what routers have learned")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    show = actions.add_parser("show", help="say what is known of which models")
    show.add_argument("place", help=PLACE)
    show.add_argument("--json", action="store_true", help="print all of it as JSON instead of a table")
    add_token(show)
    show.set_defaults(run=_show)

    export = actions.add_parser("export", help="copy what was learned into a file")
    export.add_argument("place", help=PLACE)
    export.add_argument("file", type=Path)
    add_token(export)
    export.set_defaults(run=_export)

    into = actions.add_parser("import", help="give a file's knowledge to a store, or to a file that knows nothing")
    into.add_argument("file", type=Path)
    into.add_argument("place", help=WRITTEN)
    into.set_defaults(run=_import)

    merge = actions.add_parser("merge", help="add up what several routers have learned apart, into a file")
    merge.add_argument("places", nargs="+", metavar="place", help=PLACE)
    merge.add_argument("--out", type=Path, required=True, metavar="FILE")
    add_token(merge)
    merge.set_defaults(run=_merge)

    reset = actions.add_parser("reset", help="forget all, or one model")
    reset.add_argument("place", help=WRITTEN)
    reset.add_argument("--model", default="", help="forget this model alone")
    reset.set_defaults(run=_reset)


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
        _write(options.file, read_state(Path(options.place)))
    return 0


def _import(options: argparse.Namespace) -> int:
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.snapshot import from_message  # noqa: PLC0415

    message = read_state(options.file)
    if options.place.startswith(STORE):
        state = from_message(message)
        _in_store(options.place, lambda store: store.fold([], dead_s=0, others=[state]))
    else:
        path = _file(options.place)
        if path.exists() and read_state(path).estimator_kind:
            raise ConfigurationError(f"{path} holds knowledge; merge both, or reset it first")
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
        _in_store(options.place, lambda store: _reset_store(store, options.model))
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


async def _reset_store(store: "Store", model: str) -> bool:
    """Take all that is published into the base, without what is to be forgotten: who runs takes it from there."""
    names = sorted((await store.look()).silent_s)
    return await store.fold(names, dead_s=-1, without=model, nothing=not model)


def _read(place: str, token: str) -> "LearnedState":
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.snapshot import from_json, from_message  # noqa: PLC0415

    if place.startswith(STORE):
        of_store: LearnedState = _in_store(place, _all_of)
        return of_store
    if place.startswith(HTTP):
        return from_json(_fetch(place.rstrip("/") + "/state", token))
    return from_message(read_state(Path(place)))


async def _all_of(store: "Store") -> "LearnedState":
    from extproc.core.estimator.merging import merged  # noqa: PLC0415
    from extproc.core.estimator.tables import state_of  # noqa: PLC0415

    found = await store.look()
    states = [state_of(tables) for tables in found.replicas.values()] + ([found.base.state] if found.base else [])
    return merged(states, store.terms)


def _in_store(place: str, act: "Callable[[Store], Awaitable[Any]]") -> Any:  # noqa: ANN401
    """Return what was done with the store of a configuration; it is tried again when a router was faster."""
    from extproc.config.loading import load  # noqa: PLC0415
    from extproc.core.estimator import make_estimator  # noqa: PLC0415
    from extproc.core.estimator.tables import Terms  # noqa: PLC0415
    from extproc.state.store import FAILURES, Store  # noqa: PLC0415

    configuration = load(Path(place.removeprefix(STORE)))
    settings = configuration.state.store
    if settings is None:
        raise ConfigurationError(f"{place}: this configuration has no state.store")
    features = make_estimator(configuration.estimator).state().features
    store = Store(settings, Terms.of(configuration.estimator), features)

    async def tried() -> Any:  # noqa: ANN401
        try:
            for _ in range(20):
                if done := await act(store):
                    return done
            raise ConfigurationError(f"{place}: routers were faster each time; try again")
        finally:
            await store.close()

    try:
        return asyncio.run(tried())
    except FAILURES as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{place}: {type(error).__name__}: {error}") from error


def _terms(states: "list[LearnedState]") -> "Terms":
    from extproc.core.estimator.settings import EstimatorSettings  # noqa: PLC0415
    from extproc.core.estimator.tables import Terms  # noqa: PLC0415

    kind: Any = next((state.estimator_kind for state in states if state.estimator_kind), "byteclass")
    return Terms.of(EstimatorSettings(kind=kind))


def _as_table(state: "LearnedState") -> str:
    """Return a line for each model, and one for all."""
    if not state.estimator_kind:
        return "nothing was learned"
    lines = [f"{'model':40}{'responses':>12}{'weight':>10}{'q':>8}{'started anew':>14}{'tenants, kinds':>16}"]
    names = {row.category.model for row in state.categories} | {row.category.model for row in state.outputs}
    models = {row.model: row for row in state.models}
    for name in sorted({*names, *models} - {""}):
        rows = [row for row in state.categories if row.category.model == name and row.category.key]
        model = models.get(name)
        responses = model.observations if model else sum(row.observations for row in rows)
        of_model = f"{model.weight:>10,.0f}{model.q:>8.2f}{model.generation:>14}" if model else f"{'':32}"
        lines.append(f"{name[:39]:40}{responses:>12,}{of_model}{len(rows):>16}")
    return "\n".join([*lines, f"estimator {state.estimator_kind}, {len(models)} models with prices"])


def _file(place: str) -> Path:
    if place.startswith(HTTP):
        raise ConfigurationError(f"{place}: a running router is only looked at; change its store, or its file")
    return Path(place)


def _write(path: Path, message: Any) -> None:  # noqa: ANN401
    from extproc.state.file import write_whole  # noqa: PLC0415
    from extproc.state.frame import framed  # noqa: PLC0415

    try:
        write_whole(path, framed(message.SerializeToString()))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _fetch(url: str, token: str) -> bytes:
    try:
        with urllib.request.urlopen(asking(url, token), timeout=TIMEOUT_S) as response:  # noqa: S310  (the caller checked it)
            body: bytes = response.read()
            return body
    except OSError as error:
        raise ConfigurationError(f"{url}: {why(error)}") from error
