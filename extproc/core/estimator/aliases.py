"""Which prices a model's name is estimated by: its own, its base model's, or those of all that find no place.

An adapter has its base's tokenizer and template, so its requests are estimated by, and teach, the base's prices,
scale and q; residuals by tenant or kind of text stay its own. A base is what the pools' servers report as an
adapter's parent (vLLM's list of models), as they report the first of several names for the same weights, or what
stands before the colon of `base:adapter` where that has prices already. Otherwise what is before a colon tells
nothing: sizes of one family may differ in their tokenizers.

Names come from clients, and there may be more than are remembered. To push out the least recently used would be
the worst for names that come in turn: none would be there when it comes again. So those that are there stay while
they are in use, and all others share one model, OTHERS, which knows less, but more than nothing.

Rejected: copying the base's sums into a model of the adapter's own: then replicas that share would count them
twice, and 80 adapters would take 80 places.
"""

from collections.abc import Mapping
from types import MappingProxyType

from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.served_model import ServedModel

__all__ = ["OTHERS", "Aliases"]

OTHERS = "*"
PATIENCE = 16  # responses for each place, before one that was not used may be taken


class Aliases:
    """Finds the prices of names. `parents` are what pools report, and may be set from any thread."""

    def __init__(self, models: CappedMap[str, ServedModel], max_models: int) -> None:
        self.parents: Mapping[str, str] = MappingProxyType({})
        self._models = models
        self._max_models = max_models
        self._responses = 0

    def get(self, name: str) -> ServedModel | None:
        """Return the model that a name is estimated by, if there is one."""
        return self._models.get(name) or self._models.get(self.key(name))

    def use(self, name: str) -> ServedModel:
        """Return the model that a response to a name teaches, made when it is new."""
        self._responses += 1
        model = self._models.use(self.key(name))
        model.used_at = self._responses
        return model

    def key(self, name: str) -> str:
        """Return the name whose prices count."""
        if self._models.get(name) is not None:
            return name
        parent = self.parents.get(name)
        if parent:
            return parent
        base, colon, _ = name.partition(":")
        if colon and self._models.get(base) is not None:
            return base
        return OTHERS if self._is_full() else name

    def _is_full(self) -> bool:
        if len(self._models) < self._max_models:
            return False
        _, oldest = self._models.oldest()
        return self._responses - oldest.used_at < PATIENCE * self._max_models
