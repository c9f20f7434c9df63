"""`make docs`: generates the parts of the documents that come from the code; a test checks that they are current.

A setting is described by the string below it in its dataclass, and its allowed values by its type; a metric is
described by its help text. So each fact is written in one place only.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec
from prometheus_client import CollectorRegistry

from extproc.access_log.teacher import Outcome
from extproc.config.schema import Configuration
from extproc.config.typed import dataclass_in, kind_and_range, settings_of
from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.protocol import Refused, Source
from extproc.core.exchange.transitions import TRANSITIONS, State, Transition
from extproc.core.facts import Api
from extproc.core.listener import Misconfiguration
from extproc.core.placing.policy import Reason
from extproc.core.placing.stratum import Declared, Prompt, Response
from extproc.gateways.traps import TRAPS
from extproc.gateways.traps.trap import Trap
from extproc.planning.output.schema import plan_schema
from extproc.telemetry.labels import Attempt, CountOutcome, FollowedFiles, PromptSize, Undecided, Verdict
from extproc.telemetry.metrics import Metrics
from extproc.telemetry.reloads import ReloadMetrics, ReloadOutcome
from extproc.telemetry.state_changes import ChangeOutcome, StateChange, StateChangeMetrics
from extproc.telemetry.tallies import Tally
from extproc.telemetry.workers import Replaced, WorkerMetrics, worker_streams

__all__ = ["FILES", "GENERATED", "generated"]

DOCS: Final = Path(__file__).parent
# Suffixes of names, and the units that they stand for; the longest matching suffix counts.
UNITS: Final = {
    "_bytes_per_token": "bytes/token",
    "messages_per_s": "messages/s",
    "_seconds": "s",
    "_s": "s",
    "_ms": "ms",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_messages": "messages",
    "_deviations": "deviations",
    "epsilon": "share",
}
# Labels with a closed set of values; `cause`, `change` and `outcome` have a separate set for each metric.
CLOSED_LABELS: Final[dict[str, type[StrEnum]]] = {
    "`api`": Api,
    "`reason`": Reason,
    "`source`": Source,
    "`size`, in prompt tokens": PromptSize,
    "`verdict`": Verdict,
    "`declared`, the output limit in tokens": Declared,
    "`prompt`, estimated, in tokens": Prompt,
    "`response`": Response,
    "`cause` of `dualpool_bodies_not_understood_total`": BodyFault,
    "`cause` of `dualpool_misconfigured_total`": Misconfiguration,
    "`cause` of `dualpool_refused_observations_total`": Refused,
    "`cause` of `dualpool_responses_not_learned_total`": ResponseFault,
    "`cause` of `dualpool_streams_undecided_total`": Undecided,
    "`outcome` of `dualpool_access_log_entries_total`": Outcome,
    "`outcome` of `dualpool_config_reloads_total`": ReloadOutcome,
    "`change` of `dualpool_state_changes_total`": StateChange,
    "`outcome` of `dualpool_state_changes_total`": ChangeOutcome,
    "`cause` of `dualpool_workers_replaced_total`": Replaced,
    "`outcome` of `dualpool_exact_counts_total`": CountOutcome,
    "`outcome` of `dualpool_state_snapshots_total`": Attempt,
    "`outcome` of `dualpool_state_exchanges_total`": Attempt,
    "`setting`": FollowedFiles,
}
SETTINGS_HEAD: Final = """\
| setting | type | unit | default | allowed | what it does |
|---|---|---|---|---|---|
"""


def state_table() -> str:
    """Return the exchange's transitions as a table; an event that all states handle alike gets one row."""
    rows = ["| state | event | what happens | leads to |", "|---|---|---|---|"]
    for row in TRANSITIONS:
        same = _rows_of(row.event)
        everywhere = len(same) == len(State)
        state = "any" if everywhere else row.state.value
        stays = everywhere and all(other.leads_to == (other.state,) for other in same)
        leads_to = "the same" if stays else ", ".join(row.leads_to)
        rows.append(f"| {state} | {row.event.__name__} | {row.what_happens} | {leads_to} |")
    rows.append(f"| any | any other | forward | {State.PASSING} |")
    return "\n".join(dict.fromkeys(rows))


def state_diagram() -> str:
    """Return the exchange's transitions as a Mermaid diagram, without those that stay in their state and without
    events that all states handle.
    """
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.OPEN}"]
    arrows: dict[tuple[State, State], list[str]] = {}
    for row in TRANSITIONS:
        for state in row.leads_to:
            if state is not row.state and len(_rows_of(row.event)) < len(State):
                arrows.setdefault((row.state, state), []).append(row.event.__name__)
    lines += [f"    {start} --> {end}: {', '.join(events)}" for (start, end), events in arrows.items()]
    return "\n".join([*lines, f"    {State.PASSING} --> [*]", "```"])


def _rows_of(event: type) -> list[Transition]:
    return [row for row in TRANSITIONS if row.event is event]


def settings() -> str:
    """Return a section for each group of settings, with a table."""
    return "".join(_sections(Configuration, "", "Top level")).strip()


def series() -> list[Tally[Any]]:
    """Return the router's metrics."""
    registry = CollectorRegistry()
    made = (
        Metrics(registry, 1, 1),
        ReloadMetrics(registry),
        StateChangeMetrics(registry),
        WorkerMetrics(registry, 1),
    )
    return [*(tally for metrics in made for tally in metrics.tallies), worker_streams()]


def metrics() -> str:
    """Return a table of the router's metrics."""
    rows = [_metric_row(tally) for tally in series()]
    head = "| metric | type | labels | unit | what it says |\n|---|---|---|---|---|\n"
    return "".join([head, *rows]).strip()


def labels() -> str:
    """Return a table of the labels that have a closed set of values."""
    rows = [_row(name, ", ".join(f"`{value}`" for value in values)) for name, values in CLOSED_LABELS.items()]
    return "".join(["| label | values |\n|---|---|\n", *rows]).strip()


def traps() -> str:
    """Return a section for each trap that `dualpool check envoy` looks for."""
    return "\n\n".join(map(_trap_section, TRAPS))


def _trap_section(trap: Trap) -> str:
    file, _, test = trap.shown_by.partition("::")
    shown = f"`{test}` in [{file}](../tests/envoy/{file})"
    return f"### {trap.name} ({trap.severity})\n\n{trap.why}\n\n- Fix: {trap.fix}\n- Shown by {shown}."


def exposed_name(metric: Tally[Any]) -> str:
    """Return the name of a metric on /metrics."""
    return metric.name + ("_total" if metric.kind == "counter" else "")


def _metric_row(metric: Tally[Any]) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return _row(f"`{exposed_name(metric)}`", metric.kind, labels, _unit(metric.name), metric.text)


def _sections(dataclass: type, path: str, title: str, note: str = "") -> Iterator[str]:
    """Yield a section with the settings of a dataclass, then the sections of the dataclasses nested in it."""
    types, texts = settings_of(dataclass), _texts_below(dataclass)
    parts = {name: part for name, wanted in types.items() if (part := _part_of(wanted))}
    yield f"\n## {title}\n\n{inspect.cleandoc(dataclass.__doc__ or '')}{note}\n\n{SETTINGS_HEAD}"
    for field in fields(dataclass):
        if field.name not in parts:
            yield _setting_row(field, types[field.name], path, texts[field.name])
    defaults = {field.name: field.default for field in fields(dataclass)}
    for name, part in parts.items():
        if get_origin(types[name]) is tuple:
            default = f" Default: `{_yaml(defaults[name])}`."
            yield from _sections(part, f"{path}{name}[].", f"`{path}{name}`, a list", default)
        else:
            default = " Left out by default." if defaults[name] is None else ""
            yield from _sections(part, f"{path}{name}.", f"`{path}{name}`", default)


def _setting_row(field: Field[Any], wanted: Any, path: str, text: str) -> str:
    kind, limits = kind_and_range(wanted)
    default = "*needed*" if (value := _default(field)) is MISSING else f"`{_yaml(value)}`"
    unit = _unit(f"{path.rstrip('.')}.{field.name}") if kind in ("whole number", "number") else ""
    return _row(f"`{field.name}`", kind, unit, default, limits.removeprefix("of "), text)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _part_of(wanted: Any) -> type | None:
    """Return the dataclass that gets its own section: the type itself, one of its alternatives, or the item type
    of a list.
    """
    return dataclass_in(get_args(wanted)[0] if get_origin(wanted) is tuple else wanted)


def _texts_below(dataclass: type) -> dict[str, str]:
    """Return the string below each setting of a dataclass, read from its source."""
    (body,) = ast.parse(inspect.getsource(dataclass)).body
    assert isinstance(body, ast.ClassDef)
    return {
        setting.target.id: " ".join(str(below.value.value).split())
        for setting, below in pairwise(body.body)
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def _yaml(value: object) -> str:
    """Return a default as it is written in YAML: as JSON, which is valid YAML, but without quotes around text."""
    if isinstance(value, str) and value:
        return str(value)
    return msgspec.json.encode(value).decode().replace(",", ", ").replace(":", ": ")


def _unit(name: str) -> str:
    """Return the unit by a name's suffix or, if that has none, by the suffix of its section's name."""
    section, _, own = name.rpartition(".")
    found = [end for end in UNITS if own.endswith(end)] or [end for end in UNITS if section.endswith(end)]
    return UNITS[max(found, key=len)] if found else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


# By document: its generated parts, by the name in their markers.
GENERATED: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "architecture.md": {"state table": state_table, "state diagram": state_diagram},
    "check.md": {"traps": traps},
    "configuration.md": {"settings": settings},
    "metrics.md": {"metrics": metrics, "labels": labels},
}


# Documents that are generated entirely.
FILES: Final[dict[str, Callable[[], str]]] = {
    "plan.schema.json": lambda: msgspec.json.format(msgspec.json.encode(plan_schema()), indent=1).decode() + "\n",
}


def generated(name: str) -> str:
    """Return a document with its generated parts up to date. Raises ValueError if a marker is missing."""
    if name in FILES:
        return FILES[name]()
    text = (DOCS / name).read_text("utf-8")
    for part, make in GENERATED[name].items():
        begin, end = f"<!-- generated: {part} -->\n", f"<!-- end of {part} -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"docs/{name} has no markers {begin.strip()} ... {end}")
        text = f"{before}{begin}{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    for document in (*GENERATED, *FILES):
        (DOCS / document).write_text(generated(document), "utf-8")
