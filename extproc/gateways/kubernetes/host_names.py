"""Names of hosts, each of which may begin with a wildcard: *.example.com, or * for all."""

from typing import Final

__all__ = ["ANY_HOST", "narrower"]

ANY_HOST: Final = "*"


def narrower(one: str, other: str) -> str:
    """Return the narrower one of two names, "" if no host has both."""
    pairs = ((one, other), (other, one))
    held = (
        name
        for wide, name in pairs
        if name == wide or (wide.startswith(ANY_HOST) and name.endswith(wide.removeprefix(ANY_HOST)))
    )
    return next(held, "")
