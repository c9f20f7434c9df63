"""Tables of one replica and of the others: what is whose, what both make together, and what differs."""

from collections.abc import Callable, Sequence

import numpy as np

from extproc.core.estimator.ageing import TINY, Fading, Others, Own, scaled
from extproc.core.estimator.change import RowChange
from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.tables import K, Table, added, all_keys

__all__ = ["NOTHING", "differs", "filled", "means_of", "row_changes", "shares"]

# What changes by less than this of itself is left as it is: it would cost a solution for nothing.
NOTHING = 1e-9


def shares(
    own: Own[K],
    others: Sequence[Table[K]],
    before: Others[K],
    fading: Fading,
    keep_of: Callable[[Table[K]], Numbers],
) -> tuple[Table[K], Table[K], Table[K], Numbers]:
    """Return own as it has aged, others' sum, both together, and what is kept of a base."""
    tables: list[Table[K]] = [own.old]
    tables.extend(others)
    keys = all_keys(tables)
    columns = max(table.values.shape[1] for table in tables)
    tables[0] = Table.zeros(keys, columns)
    part = added(tables, keys)
    fresh = np.maximum(part.counts - before.part.aligned(keys, columns).counts, 0)
    aged, kept = own.aligned(keys, columns).aged(fresh, fading)
    within = keep_of(Table(part.index, part.counts, aged.weights + part.weights, aged.values + part.values))
    aged = scaled(aged, within)
    both = Table(part.index, aged.counts + part.counts, aged.weights + part.weights, aged.values + part.values)
    keep = np.repeat(kept, fading.widths(columns), axis=1) if kept.shape[1] > 1 else kept
    # How old a base is that was not known before, those tell who knew it.
    known = np.array([key in before.part.index for key in keys], np.bool_)
    return aged, part, both, np.where(known[:, None], keep, 1.0) * within


def row_changes(target: Table[CategoryKey], view: Table[CategoryKey], values: Numbers) -> tuple[RowChange, ...]:
    """Return the changes of those rows that differ by more than nothing, in responses or in values."""
    responses = (target.counts - view.counts).tolist()
    moved = np.abs(target.values - view.values)
    changed = np.max(moved - NOTHING * np.abs(view.values), axis=1, initial=0.0).tolist()
    return tuple(
        RowChange(key, int(view.counts[row]), responses[row], values[row])
        for key, row in target.index.items()
        if changed[row] > 0 or responses[row]
    )


def filled(table: Table[CategoryKey]) -> Table[CategoryKey]:
    """Return the rows that hold something."""
    return table.aligned([key for key, row in table.index.items() if table.counts[row]])


def means_of(table: Table[CategoryKey]) -> Numbers:
    """Return what rows hold for each response that they weigh."""
    return table.values / np.maximum(table.weights, TINY)[:, None]


def differs(one: Table[K], other: Table[K], row: int) -> bool:
    """Tell whether two tables differ in a row by more than nothing."""
    if one.counts[row] != other.counts[row]:
        return True
    largest = np.abs(other.values[row]).max(initial=TINY)
    return bool(np.abs(one.values[row] - other.values[row]).max(initial=0.0) > NOTHING * largest)
