"""A map of what is learned per category, limited in size because its keys come from clients."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["CappedMap"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class CappedMap(Generic[K, V]):
    """At most `max_entries` entries; a new one evicts the least recently used."""

    def __init__(self, max_entries: int, make: Callable[[K], V]) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._max_entries = max_entries
        self._make = make
        self.get: Callable[[K], V | None] = self._entries.get
        """Return the entry or None, without marking it as used; the dictionary's own method, for speed."""

    def use(self, key: K) -> V:
        """Return the entry of `key`, created if it is new, and mark it as the most recently used."""
        entry = self.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry
        entry = self._make(key)
        self.put(key, entry)
        return entry

    def put(self, key: K, entry: V) -> None:
        """Set an entry, and mark it as the most recently used."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def oldest(self) -> tuple[K, V]:
        """Return the least recently used entry; the map must not be empty."""
        return next(iter(self._entries.items()))

    def drop(self, unwanted: Callable[[K], bool]) -> dict[K, V]:
        """Remove the entries whose key is `unwanted`, and return them."""
        return {key: self._entries.pop(key) for key in [key for key in self._entries if unwanted(key)]}

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(list(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)
