"""Pairs of like objects of Envoy Gateway, ours and another, for `dualpool check envoy`: which one comes first."""

from typing import Final

__all__ = ["PAIRS"]

OLD: Final = "creationTimestamp: '2026-01-02T03:04:05Z'"
NEW: Final = "creationTimestamp: '2026-02-02T03:04:05Z'"
# The other's name, more of its metadata, more of the metadata of ours (which is named "llm"), and whether it comes
# before ours: by age, then by name. One that is not in the cluster yet will be younger than those that are.
PAIRS: Final = (
    ("abc", "", "", True),
    ("xyz", "", "", False),
    ("abc", NEW, OLD, False),
    ("xyz", OLD, NEW, True),
    ("abc", OLD, OLD, True),
    ("xyz", OLD, OLD, False),
    ("abc", "", OLD, False),
    ("xyz", OLD, "", True),
    ("abc", "namespace: web", "", True),
)
