"""Choice of the prices for a model name: its own, its base model's, or those that all other names share.

An adapter has the tokenizer and the template of its base model, so its requests are estimated by, and teach, the
base's prices, scale and q; residuals by tenant or kind of text stay its own. The base of a name is what the pools'
servers report as an adapter's parent (vLLM's list of models), or as the first of several names of the same
weights; or the part before the colon of `base:adapter` if that part already has prices. Otherwise the part before
a colon means nothing: different sizes of one model family may have different tokenizers.

Names come from clients, so there may be more of them than are remembered. Evicting the least recently used name
would be the worst choice for names that take turns: none would still be there when its turn comes again. So models
that are in use stay, and all other names share one model, OTHERS, which knows less, but more than nothing.

Rejected: copying the base's sums into a separate model of the adapter. Replicas that share would count them twice,
and 80 adapters would take 80 places.
"""

from collections.abc import Mapping
from types import MappingProxyType

from extproc.core.estimator.categories import CappedMap
from extproc.core.estimator.served_model import ServedModel

__all__ = ["OTHERS", "Aliases"]

OTHERS = "*"
PATIENCE = 16  # responses per place before a model that was not used may be evicted


class Aliases:
    """Maps names to models. `parents` are the base models that pools report; may be set from any thread."""

    def __init__(self, models: CappedMap[str, ServedModel], max_models: int) -> None:
        self.parents: Mapping[str, str] = MappingProxyType({})
        self._models = models
        self._max_models = max_models
        self._responses = 0

    def get(self, name: str) -> ServedModel | None:
        """Return the model that a name is estimated by, or None."""
        return self._models.get(name) or self._models.get(self.key(name))

    def use(self, name: str) -> ServedModel:
        """Return the model that a response under this name teaches; create it if it is new."""
        self._responses += 1
        model = self._models.use(self.key(name))
        model.used_at = self._responses
        return model

    def key(self, name: str) -> str:
        """Return the name whose prices apply."""
        if self._models.get(name) is not None:
            return name
        base = self.parents.get(name)
        if not base:
            before, colon, _ = name.partition(":")
            base = before if colon and self._models.get(before) is not None else name
        return base if self._models.get(base) is not None or not self._is_full() else OTHERS

    def _is_full(self) -> bool:
        if len(self._models) < self._max_models:
            return False
        _, oldest = self._models.oldest()
        return self._responses - oldest.used_at < PATIENCE * self._max_models
