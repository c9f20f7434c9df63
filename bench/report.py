"""Rendering of tables and of bench/results.md as Markdown."""

import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.measuring import Plan, Table

__all__ = ["as_markdown", "document"]

HEAD = """\
# Benchmarks: speed and memory of the router

Measured on {date} by `make bench ARGS="--rounds {rounds} --requests {requests}"`: {cores} {machine} cores, shared
by all processes (servers, Envoy and load generators); Linux, Python {python}, grpcio {grpcio}, Envoy {envoy}. Look
at the ratios: they are of runs side by side, while absolute figures depend on this machine. Figures are medians
over the rounds ({rounds}), with the smallest and largest in brackets. 1 KB is 1,024 bytes, 1 MB of memory 10^6.
"""


def document(sections: Mapping[str, Sequence[Table]], plan: Plan) -> str:
    """Return the text of bench/results.md."""
    head = HEAD.format(
        date=datetime.now(UTC).date(),
        rounds=plan.rounds,
        requests=plan.requests,
        cores=os.cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        grpcio=version("grpcio"),
        envoy=_envoy_version(),
    )
    parts = [head]
    for name, tables in sections.items():
        command = f"`python -m bench --only {name} --rounds {plan.rounds} --requests {plan.requests}`\n"
        parts += [f"{as_markdown(table)}\n{command}" for table in tables]
    return "\n".join(parts)


def as_markdown(table: Table) -> str:
    """Return a table as Markdown: title, notes, table."""
    lines = [f"## {table.title}", table.notes, "", _line(table.columns), _line(["---"] * len(table.columns))]
    return "\n".join([*lines, *map(_line, table.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _envoy_version() -> str:
    envoy = Path(sysconfig.get_path("scripts")) / "envoy"
    output = subprocess.run([envoy, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"/(\d+\.\d+\.\d+)", output)
    return found[1] if found else "of unknown version"
