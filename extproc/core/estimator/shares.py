"""Tables of one replica and of the others: which part is whose, their sum, and how they differ."""

from collections.abc import Callable, Sequence

import numpy as np

from extproc.core.estimator.ageing import TINY, Fading, Others, Own, scaled
from extproc.core.estimator.change import RowChange
from extproc.core.estimator.packing import Numbers
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.tables import NO_WEIGHT, K, Table, added, all_keys

__all__ = ["NOTHING", "differs", "filled", "means_of", "per_weight", "row_changes", "shares"]

# Smaller relative changes are not applied: solving for new prices would be wasted.
NOTHING = 1e-9


def shares(
    own: Own[K],
    others: Sequence[Table[K]],
    before: Others[K],
    fading: Fading,
    keep_of: Callable[[Table[K]], Numbers],
) -> tuple[Table[K], Table[K], Table[K], Numbers]:
    """Return own knowledge as it has aged, the others' sum, the total, and the share to keep of a base."""
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
    # A base that was not known before comes with its age, from the replicas that knew it.
    known = np.array([key in before.part.index for key in keys], np.bool_)
    return aged, part, both, np.where(known[:, None], keep, 1.0) * within


def row_changes(target: Table[CategoryKey], view: Table[CategoryKey], values: Numbers) -> tuple[RowChange, ...]:
    """Return the changes of the rows that differ by more than NOTHING, in responses or in values."""
    responses = (target.counts - view.counts).tolist()
    moved = np.abs(target.values - view.values)
    changed = np.max(moved - NOTHING * np.abs(view.values), axis=1, initial=0.0).tolist()
    return tuple(
        RowChange(key, int(view.counts[row]), responses[row], values[row])
        for key, row in target.index.items()
        if changed[row] > 0 or responses[row]
    )


def filled(table: Table[CategoryKey]) -> Table[CategoryKey]:
    """Return the rows that have responses."""
    return table.aligned([key for key, row in table.index.items() if table.counts[row]])


def means_of(table: Table[CategoryKey]) -> Numbers:
    """Return the means of the rows: their values divided by their weights.

    They are 0 for rows without weight. After a reset, what rounding leaves of their values is not 0.
    """
    return table.values * per_weight(table)[:, None]


def per_weight(table: Table[CategoryKey]) -> Numbers:
    """Return 1 / weight of the rows, 0 for rows without weight."""
    return np.where(table.weights > NO_WEIGHT, 1 / np.maximum(table.weights, NO_WEIGHT), 0.0)


def differs(one: Table[K], other: Table[K], row: int) -> bool:
    """Return whether two tables differ in a row by more than NOTHING."""
    if one.counts[row] != other.counts[row]:
        return True
    largest = np.abs(other.values[row]).max(initial=TINY)
    return bool(np.abs(one.values[row] - other.values[row]).max(initial=0.0) > NOTHING * largest)
