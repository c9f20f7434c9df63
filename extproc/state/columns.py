"""The message that a replica publishes: its sums in columns, so that all others can read it every few seconds.

One message per row would be the natural form, and is the form of files and of `/state`. But each replica reads the
messages of all others at each exchange, and reading each field of 16 x 500 rows took most of that time. In
columns, a table is five byte strings, and a sum that is 0 (an unused script, a length that no response had) takes
one bit.

Keys are mostly the same from one exchange to the next, and often the same in several replicas: tables whose keys
are the same bytes share one index, and are added without looking at it.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.length_counts import BINS
from extproc.core.estimator.packing import Numbers, packed, unpacked
from extproc.core.estimator.protocol import CategoryKey
from extproc.core.estimator.tables import (
    CATEGORY_COLUMNS,
    Bounds,
    K,
    Models,
    Table,
    Tables,
    checked,
    checked_bounds,
    model_columns,
)
from extproc.state.pb import state_pb2
from extproc.state.snapshot import MOST_COUNTED

__all__ = ["Indexes", "columns_of", "tables_in"]

VERSION: Final = 1
INT64: Final = "<i8"

Integers = npt.NDArray[np.int64]


class Indexes:
    """The indexes of recently read tables, by the bytes of their keys."""

    def __init__(self) -> None:
        self._before: dict[tuple[bytes, bool], dict[Any, int]] = {}
        self._now: dict[tuple[bytes, bool], dict[Any, int]] = {}

    def next_round(self) -> None:
        """Called before each look at the store: drop the indexes that the previous look did not use."""
        self._before, self._now = self._now, {}

    def index(self, data: bytes, *, of_models: bool) -> dict[Any, int]:
        """Return the row of each key. Raises ConfigurationError if `data` is not a list of distinct keys."""
        place = data, of_models
        index = self._now.get(place) or self._before.get(place)
        if index is None:
            names = _names(data, of_models=of_models)
            index = {name: row for row, name in enumerate(names)}
            if len(index) != len(names):
                raise ConfigurationError("learned state names a model or category twice")
        self._now[place] = index
        return index


def columns_of(tables: Tables) -> state_pb2.Columns:
    """Return tables as a message."""
    models, sums = tables.models, tables.models.sums
    names = sorted(sums.index)
    rows = [sums.index[name] for name in names]
    bounds = models.bounds.of_rows(rows)
    return state_pb2.Columns(
        estimator_kind=tables.kind,
        features=tables.features,
        version=VERSION,
        models=_rows_of(sums, names, state_pb2.Keys(models=names)),
        categories=_rows_of_categories(tables.categories),
        outputs=_rows_of_categories(tables.outputs),
        q=packed(bounds.q),
        q_began=packed(bounds.began),
        scored=_packed_integers(bounds.scored),
        generations=_packed_integers(models.generations[rows]),
        counters=_packed_integers(models.counters[rows]),
        score_counts=_packed_integers([len(each) for each in bounds.scores]),
        scores=b"".join(map(packed, bounds.scores)),
    )


def tables_in(message: state_pb2.Columns, indexes: Indexes) -> Tables:
    """Return the tables in a message.

    Raises ConfigurationError for a later version, for columns whose length does not match their keys, for sums
    whose size does not match the features, and for invalid numbers.
    """
    if message.version > VERSION:
        raise ConfigurationError(f"learned columns have version {message.version}; this router supports {VERSION}")
    sums: Table[str] = _table(message.models, indexes, sum(model_columns(len(message.features))), of_models=True)
    n = len(sums.index)
    lengths = _integers(message.score_counts, n)
    scores = _doubles(message.scores, int(lengths.sum()))
    q, began = _doubles(message.q, n), _doubles(message.q_began, n)
    bounds = Bounds(
        q,
        np.where(lengths > 0, began, q),
        tuple(np.split(scores, np.cumsum(lengths)[:-1]))[:n],
        _integers(message.scored, n),
    )
    models = Models(
        sums,
        checked_bounds(bounds),
        _integers(message.generations, n),
        _integers(message.counters, 3 * n).reshape(n, 3),
    )
    categories: Table[CategoryKey] = _table(message.categories, indexes, CATEGORY_COLUMNS)
    outputs: Table[CategoryKey] = _table(message.outputs, indexes, 2 * BINS)
    return Tables(message.estimator_kind, tuple(message.features), models, categories, outputs)


def _rows_of_categories(table: Table[CategoryKey]) -> state_pb2.Rows:
    keys = sorted(table.index)
    named = state_pb2.Keys(models=[key.model for key in keys], keys=[key.key for key in keys])
    return _rows_of(table, keys, named)


def _rows_of(table: Table[K], keys: Sequence[K], named: state_pb2.Keys) -> state_pb2.Rows:
    rows = [table.index[key] for key in keys]
    values = table.values[rows].ravel()
    filled = values != 0
    return state_pb2.Rows(
        keys=named.SerializeToString(),
        counts=_packed_integers(table.counts[rows]),
        weights=packed(table.weights[rows]),
        filled=np.packbits(filled).tobytes(),
        values=packed(values[filled]),
    )


def _table(rows: state_pb2.Rows, indexes: Indexes, columns: int, *, of_models: bool = False) -> Table[K]:
    index: dict[K, int] = indexes.index(rows.keys, of_models=of_models)
    n = len(index)
    size = n * columns
    if len(rows.filled) != (size + 7) // 8:
        raise ConfigurationError(f"learned rows do not have {columns} columns")
    filled = np.unpackbits(np.frombuffer(rows.filled, np.uint8), count=size).view(bool)
    values = np.zeros(size)
    values[filled] = _doubles(rows.values, int(np.count_nonzero(filled)))
    table = Table(index, _integers(rows.counts, n), _doubles(rows.weights, n), values.reshape(n, columns))
    return checked(table)


def _names(data: bytes, *, of_models: bool) -> list[Any]:
    try:
        keys = state_pb2.Keys.FromString(data)
    except DecodeError as error:
        raise ConfigurationError(f"learned keys are not valid protobuf: {error}") from error
    if of_models:
        return list(keys.models)
    if len(keys.models) != len(keys.keys):
        raise ConfigurationError("learned categories and their models differ in number")
    return list(map(CategoryKey, keys.models, keys.keys))


def _packed_integers(numbers: npt.ArrayLike) -> bytes:
    return np.asarray(numbers, INT64).clip(max=MOST_COUNTED).tobytes()


def _integers(data: bytes, count: int) -> Integers:
    numbers = np.frombuffer(_of_length(data, count), INT64)
    for number in numbers[(numbers < 0) | (numbers > MOST_COUNTED)][:1]:
        raise ConfigurationError(f"a learned count: {number} given; allowed: 0 to {MOST_COUNTED}")
    return numbers


def _doubles(data: bytes, count: int) -> Numbers:
    return unpacked(_of_length(data, count))


def _of_length(data: bytes, count: int) -> bytes:
    if len(data) != 8 * count:
        raise ConfigurationError(f"{len(data) / 8:g} learned numbers instead of {count}")
    return data
