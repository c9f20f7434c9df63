"""`dualpool state`: show, move, merge or reset learned state in a file, a shared store or a running router.

A running router accepts changes from callers that send its token; if it uses a shared store, it changes the store.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from extproc.cli.state_places import HTTP, PLACE, STORE, changed, file_of, in_store, read, write
from extproc.cli.token import add_token, bearer_of
from extproc.core.errors import ConfigurationError, printable
from extproc.files import read_file

if TYPE_CHECKING:
    from extproc.core.estimator.protocol import LearnedState
    from extproc.core.estimator.terms import Terms
    from extproc.state.pb.state_pb2 import LearnedState as LearnedStateMessage

__all__ = ["add"]


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

    merge = actions.add_parser(
        "merge",
        help="merge what several routers have learned separately into a file",
        description="Adds up what routers have learned separately. What two of them have in common would count "
        "twice: routers that share a store, or began with the same file, and earlier copies of the same state. "
        "Merging is refused where the states show it, which those that are many responses apart do not.",
    )
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

    state = read(options.place, bearer_of(options))
    print(to_json(state) if options.json else _as_table(state))
    return 0


def _export(options: argparse.Namespace) -> int:
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.snapshot import to_message  # noqa: PLC0415

    if options.place.startswith((STORE, *HTTP)):
        write(options.file, to_message(read(options.place, bearer_of(options))))
    else:
        write(options.file, read_state(file_of(options.place)))
    return 0


def _import(options: argparse.Namespace) -> int:
    from extproc.state.file import MAX_FILE_BYTES, read_state  # noqa: PLC0415
    from extproc.state.snapshot import from_message  # noqa: PLC0415

    message = read_state(options.file)
    if options.place.startswith(STORE):
        state = from_message(message)
        print(in_store(options.place, lambda store: store.add(state)))
    elif options.place.startswith(HTTP):
        content = read_file(options.file, MAX_FILE_BYTES)
        print(changed(f"{options.place.rstrip('/')}/state/import", bearer_of(options), content))
    else:
        path = file_of(options.place)
        if path.exists() and read_state(path).estimator_kind:
            raise ConfigurationError(f"{path} already holds learned state; merge both, or reset it first")
        write(path, message)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from extproc.core.estimator.in_common import in_common  # noqa: PLC0415
    from extproc.core.estimator.merging import bounded, merged  # noqa: PLC0415
    from extproc.state.snapshot import to_message  # noqa: PLC0415

    token = bearer_of(options)
    states = [read(place, token) for place in options.places]
    if (same := in_common(states)) is not None:
        one, two = (options.places[index] for index in same)
        raise ConfigurationError(
            f"{one} and {two} hold what was learned from the same responses, which would count twice; "
            "give only one of them"
        )
    terms = _terms(states)
    write(options.out, to_message(bounded(merged(states, terms), terms)))
    return 0


def _reset(options: argparse.Namespace) -> int:
    from extproc.state.changing import unknown  # noqa: PLC0415
    from extproc.state.file import read_state  # noqa: PLC0415
    from extproc.state.pb import state_pb2  # noqa: PLC0415

    if options.place.startswith(STORE):
        print(in_store(options.place, lambda store: store.forget(options.model or "")))
        return 0
    if options.place.startswith(HTTP):
        query = f"?{urlencode({'model': options.model})}" if options.model else ""
        print(changed(f"{options.place.rstrip('/')}/state/reset{query}", bearer_of(options), b""))
        return 0
    path = file_of(options.place)
    message = read_state(path)
    if not options.model:
        write(path, state_pb2.LearnedState())
    elif _without(message, options.model):
        write(path, message)
    else:
        print(unknown(options.model))
    return 0


def _without(message: "LearnedStateMessage", model: str) -> bool:
    """Remove a model from a state file's message; return whether it was there."""
    found = False
    for rows in (message.categories, message.models, message.outputs):
        for index in reversed(range(len(rows))):
            if rows[index].model == model:
                del rows[index]
                found = True
    return found


def _undo(options: argparse.Namespace) -> int:
    if not options.place.startswith(HTTP):
        raise ConfigurationError(
            f"{options.place}: only running routers remember replaced prices; give http://ADMIN"
        )
    query = urlencode({"model": options.model})
    print(changed(f"{options.place.rstrip('/')}/state/undo?{query}", bearer_of(options), b""))
    return 0


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
        lines.append(f"{printable(name[:39]):40}{responses:>12,}{of_model}{len(rows):>16}")
    return "\n".join([*lines, f"estimator {state.estimator_kind}; models with prices: {len(models)}"])
