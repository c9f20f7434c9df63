"""A map of what is learned by category, bounded in size because its keys come from clients."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["CappedMap"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class CappedMap(Generic[K, V]):
    """At most `max_entries` entries; a new one pushes out the least recently used."""

    def __init__(self, max_entries: int, make: Callable[[K], V]) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._max_entries = max_entries
        self._make = make
        self.get: Callable[[K], V | None] = self._entries.get
        """Return the entry without counting as a use, or None; the dictionary's own, since every request asks."""

    def use(self, key: K) -> V:
        """Return the entry of `key`, made when it is new, and mark it as the most recently used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry
        entry = self._make(key)
        self.put(key, entry)
        return entry

    def put(self, key: K, entry: V) -> None:
        """Set an entry as the most recently used one."""
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def oldest(self) -> tuple[K, V]:
        """Return the least recently used entry; there has to be one."""
        return next(iter(self._entries.items()))

    def drop(self, unwanted: Callable[[K], bool]) -> dict[K, V]:
        """Forget the entries with such keys, and return them."""
        return {key: self._entries.pop(key) for key in [key for key in self._entries if unwanted(key)]}

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(list(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)
