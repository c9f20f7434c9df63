"""Changes that bring an estimator up to date with other replicas; computed by sharing.py, in another thread."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from extproc.core.estimator.packing import Numbers

__all__ = [
    "ALL_MODELS",
    "BITE_ROWS",
    "RESERVED",
    "CategoryKey",
    "Change",
    "ModelChange",
    "RowChange",
    "in_bites",
    "is_of",
    "residual_key",
]

BITE_ROWS = 64

Row = TypeVar("Row")


class CategoryKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """The unit that is learned separately: the served model, with a tenant or otherwise the kind of text."""

    model: str
    key: str


RESERVED: Final = "\x1f"
"""A character in keys of ours that no key of a client has (kinds.py)."""
ALL_MODELS: Final = CategoryKey("", "")
"""The key of the residual of all models."""
_UNNAMED: Final = CategoryKey("", "unnamed" + RESERVED)


def residual_key(model: str) -> CategoryKey:
    """Return the key of a model's residual: an empty one, except for the model to which clients give no name."""
    return CategoryKey(model, "") if model else _UNNAMED


def is_of(key: CategoryKey, models: Collection[str]) -> bool:
    """Return whether a category or a residual belongs to one of these models."""
    return key.model in models and key != ALL_MODELS


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What to add to the sums of a model that had `since` responses when this was computed."""

    model: str
    from_generation: int
    generation: int
    since: int
    responses: int
    weight: float
    q: float
    values: Numbers


@dataclass(frozen=True, slots=True)
class RowChange:
    """The same for a category: `values` are added to its means (bytes per token, deviation, residual, variance).

    For output lengths they are added to the counts.
    """

    key: CategoryKey
    since: int
    responses: int
    values: Numbers


@dataclass(frozen=True, slots=True)
class Change:
    """All changes to apply to an estimator."""

    models: tuple[ModelChange, ...] = ()
    categories: tuple[RowChange, ...] = ()
    outputs: tuple[RowChange, ...] = ()

    def bites(self) -> Iterator["Change"]:
        """Yield it in parts of one model or some rows: the event loop applies one of them between requests.

        A model comes with its residual, without which a new one would have no spread.
        """
        rows_of: dict[CategoryKey, tuple[RowChange, ...]] = {residual_key(each.model): () for each in self.models}
        rows_of |= {row.key: (row,) for row in self.categories if row.key in rows_of}
        for model in self.models:
            yield Change(models=(model,), categories=rows_of[residual_key(model.model)])
        for rows in in_bites([row for row in self.categories if row.key not in rows_of]):
            yield Change(categories=tuple(rows))
        for rows in in_bites(self.outputs):
            yield Change(outputs=tuple(rows))


def in_bites(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Return rows in parts that each take about as long to apply as one model."""
    return [rows[start : start + BITE_ROWS] for start in range(0, len(rows), BITE_ROWS)]
