"""What is to be put into an estimator of others' knowledge; sharing.py reckons it, in another thread."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from extproc.core.estimator.packing import Numbers

__all__ = ["CategoryKey", "Change", "ModelChange", "RowChange"]


class CategoryKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """What an estimate is learned by: the served model, and a tenant or else the kind of text."""

    model: str
    key: str


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What is to be added to the sums of a model that stood at `since` responses when this was reckoned."""

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
    """The same of a category: `values` are added to its means (bytes per token, deviation, residual, variance).

    Of output lengths they are added to the counts.
    """

    key: CategoryKey
    since: int
    responses: int
    values: Numbers


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be put into an estimator."""

    models: tuple[ModelChange, ...] = ()
    categories: tuple[RowChange, ...] = ()
    outputs: tuple[RowChange, ...] = ()

    def bites(self, rows: int) -> Iterator["Change"]:
        """Yield it in parts of one model, or so many rows: the deciding thread takes one between requests."""
        for model in self.models:
            yield Change(models=(model,))
        for start in range(0, len(self.categories), rows):
            yield Change(categories=self.categories[start : start + rows])
        for start in range(0, len(self.outputs), rows):
            yield Change(outputs=self.outputs[start : start + rows])

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to be done."""
        return not (self.models or self.categories or self.outputs)
