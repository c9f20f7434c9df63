"""Label values that come from clients, bounded in number: what is beyond the first few is `other`.

So that invented names do not take the places for good, a value is only let in by something that clients cannot
make up: for models, a response of the model.
"""

__all__ = ["OTHER", "BoundedLabels"]

OTHER = "other"


class BoundedLabels:
    """Lets the first `max_values` distinct values through; all later ones are `other`."""

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._known: set[str] = set()

    def known(self, value: str) -> str:
        """Return the value if it was let in, or is nothing; else `other`."""
        return value if not value or value in self._known else OTHER

    def label(self, value: str) -> str:
        """Return the value, which is let in if there is a place; else `other`."""
        if value in self._known:
            return value
        if len(self._known) >= self._max_values:
            return OTHER
        self._known.add(value)
        return value
