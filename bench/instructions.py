"""Instructions of our own code for one exchange, counted by Valgrind, on an idle or a busy machine.

They do not show what caches and branches cost, so they rank changes rather than predict times.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bench.earlier import tree_of_0_1_0
from bench.measuring import Plan, Table
from bench.stack import Stack
from extproc.core.errors import DualpoolError

__all__ = ["NotCounted", "measure"]

ROOT = Path(__file__).parents[1]
KINDS = ("released", "learned")
# Prices are solved for after every 64 responses, so both are multiples of that. The first run is subtracted from
# the second: what remains is without the imports and the making of the objects.
FEWER, MORE = 64, 64 + 256
ENDS_WITHIN_S = 600.0
NOTES = f"""\
Instructions per exchange in a loop like that of "Cost of our own code", user space only, as counted by Valgrind's
callgrind with one BLAS thread: the difference of {MORE} and {FEWER} exchanges, divided. Whatever else the
machine does, they vary by less than 1 %; but they depend on the versions of Python and numpy."""


class NotCounted(DualpoolError):
    """Valgrind is not installed, or what it ran failed."""


def measure(stack: Stack, _plan: Plan) -> list[Table]:
    """Count the instructions of both kinds of exchange, of 0.1.0 and today."""
    if shutil.which("valgrind") is None:
        raise NotCounted("valgrind: no such program; Debian and Ubuntu: apt-get install valgrind")
    before = tree_of_0_1_0(stack)
    rows = []
    for kind in KINDS:
        was, now = _per_exchange(before, kind), _per_exchange(ROOT, kind)
        rows.append((f"a {kind} exchange", f"{was / 1000:.0f}", f"{now / 1000:.0f}", f"{now / was:.2f}"))
    columns = ("part", "0.1.0, thousands", "now, thousands", "now / 0.1.0")
    return [Table("Instructions of our own code", NOTES, columns, rows)]


def _per_exchange(tree: Path, kind: str) -> float:
    return (_instructions(tree, kind, MORE) - _instructions(tree, kind, FEWER)) / (MORE - FEWER)


def _instructions(tree: Path, kind: str, times: int) -> int:
    counting = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command = [*counting, sys.executable, "-P", str(ROOT / "bench" / "loop.py"), kind, str(times)]
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",  # otherwise the first run compiles what the second finds compiled
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=ENDS_WITHIN_S, check=False
    )
    counted = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or counted is None:
        raise NotCounted(f"{' '.join(command)} counted nothing:\n{done.stderr[-2000:]}")
    return int(counted[1])
