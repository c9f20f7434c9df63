"""Writes configuration.md and metrics.md from the code: `make docs`. With --check it only tells what differs.

What a setting does is the text below it in its dataclass, and its range is that of its type; what a metric says is
its help text. So each is said in one place, and a test keeps these pages to it.
"""

import argparse
import ast
import difflib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from extproc.config.schema import Configuration
from extproc.config.typed import dataclass_in, kind_and_range, settings_of
from extproc.core.errors import BodyFault, ResponseFault
from extproc.core.estimator.protocol import Refused, Source
from extproc.core.facts import Api
from extproc.core.listener import Misconfiguration
from extproc.core.placing.policy import Reason
from extproc.telemetry.metrics import Metrics

FOLDER: Final = Path(__file__).parent
# How names end, and the unit that this says; the longest ending counts.
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
# Labels with a closed set of values; `cause` has one for each metric.
CLOSED_LABELS: Final[dict[str, type[StrEnum]]] = {
    "`api`": Api,
    "`reason`": Reason,
    "`source`": Source,
    "`cause` of `dualpool_bodies_not_understood_total`": BodyFault,
    "`cause` of `dualpool_misconfigured_total`": Misconfiguration,
    "`cause` of `dualpool_refused_observations_total`": Refused,
    "`cause` of `dualpool_responses_not_learned_total`": ResponseFault,
}
CONFIGURATION_HEAD: Final = """\
<!-- Made by `make docs` from extproc/config/schema.py and the settings that it holds: change them there. -->
# Configuration

`dualpool serve --config FILE` reads a file of YAML 1.2. Every section may be left out, and every setting but those
whose default is *needed*. A setting that is not known or given twice, or a value that is not allowed, ends the
program with exit code 2; all of them are told at once. `/config` of the admin server shows what is in force.
"""
SETTINGS_HEAD: Final = """\
| setting | type | unit | default | allowed | what it does |
|---|---|---|---|---|---|
"""
METRICS_HEAD: Final = """\
<!-- Made by `make docs` from extproc/telemetry/metrics.py: change it there. -->
# Metrics

`/metrics` of the admin server, for Prometheus: these, and those of the process (`process_*`, `python_*`).

| metric | type | labels | unit | what it says |
|---|---|---|---|---|
"""
LABELS_HEAD: Final = """
`model` and `category` (a tenant or a kind of text) are clients' words: the first so many get a label, the rest is
`other`; see `metrics` in [configuration.md](configuration.md). `pool` is a pool's name, `kind` an exception's.

| label | values |
|---|---|
"""


def main() -> int:
    """Write the pages, or compare them; 1 when they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; print what differs, exit 1 if anything"
    )
    check = parser.parse_args().check
    different = False
    for name, page in (("configuration.md", configuration_page()), ("metrics.md", metrics_page())):
        file = FOLDER / name
        if not check:
            file.write_text(page, "utf-8")
            continue
        there = file.read_text("utf-8") if file.exists() else ""
        lines = list(difflib.unified_diff(there.splitlines(), page.splitlines(), name, "the code", lineterm=""))
        print("\n".join(lines))
        different |= bool(lines)
    return int(different)


def configuration_page() -> str:
    """Return configuration.md."""
    return CONFIGURATION_HEAD + "".join(_sections(Configuration, "", "Top level"))


def metrics_page() -> str:
    """Return metrics.md."""
    made = vars(Metrics(CollectorRegistry(), 1, 1)).values()
    metrics = [getattr(each, "_metric", each) for each in made]
    rows = [_metric_row(metric) for metric in metrics if isinstance(metric, MetricWrapperBase)]
    labels = [_row(name, ", ".join(f"`{value}`" for value in values)) for name, values in CLOSED_LABELS.items()]
    return "".join([METRICS_HEAD, *rows, LABELS_HEAD, *labels])


def _metric_row(metric: MetricWrapperBase) -> str:
    name = metric._name + ("_total" if metric._type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)
    return _row(f"`{name}`", str(metric._type), labels, _unit(metric._name), metric._documentation)


def _sections(dataclass: type, path: str, title: str, note: str = "") -> Iterator[str]:
    """Yield a section of the settings of a dataclass, and after it those of the dataclasses in it."""
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
    default = "*needed*" if field.default is MISSING else f"`{_yaml(field.default)}`"
    unit = _unit(f"{path.rstrip('.')}.{field.name}") if kind in ("whole number", "number") else ""
    return _row(f"`{field.name}`", kind, unit, default, limits.removeprefix("of "), text)


def _part_of(wanted: Any) -> type | None:
    """Return the dataclass that gets its own section: the type, an alternative in it, or what a list holds."""
    return dataclass_in(get_args(wanted)[0] if get_origin(wanted) is tuple else wanted)


def _texts_below(dataclass: type) -> dict[str, str]:
    """Return the strings that stand below the settings of a dataclass, in its source."""
    (body,) = ast.parse(inspect.getsource(dataclass)).body
    assert isinstance(body, ast.ClassDef)
    return {
        name: " ".join(text.split())
        for setting, below in pairwise(body.body)
        if isinstance(setting, ast.AnnAssign) and isinstance(setting.target, ast.Name)
        for name in (setting.target.id,)
        if isinstance(below, ast.Expr) and isinstance(text := ast.literal_eval(below.value), str)
    }


def _yaml(value: object) -> str:
    """Return a default as it would be written: JSON is YAML, and quotes around words are not needed."""
    if isinstance(value, str) and value:
        return str(value)
    return (
        msgspec.json.format(msgspec.json.encode(value), indent=-1).decode().replace(",", ", ").replace(":", ": ")
    )


def _unit(name: str) -> str:
    """Return the unit that a name says: by its own end or, where that says none, by its section's."""
    section, _, own = name.rpartition(".")
    found = [end for end in UNITS if own.endswith(end)] or [end for end in UNITS if section.endswith(end)]
    return UNITS[max(found, key=len)] if found else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
