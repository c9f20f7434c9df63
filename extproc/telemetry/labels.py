"""Label values that come from clients, bounded in number: what is beyond the first few is `other`."""

__all__ = ["OTHER", "BoundedLabels"]

OTHER = "other"


class BoundedLabels:
    """Lets the first `max_values` distinct values through; all later ones are `other`."""

    def __init__(self, max_values: int) -> None:
        self._max_values = max_values
        self._known: set[str] = set()

    def label(self, value: str) -> str:
        """Return the value, or `other`."""
        if value in self._known:
            return value
        if len(self._known) >= self._max_values:
            return OTHER
        self._known.add(value)
        return value
