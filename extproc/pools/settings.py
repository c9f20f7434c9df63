"""Settings for watching the pools' servers; the configuration file decodes into this object."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

__all__ = ["WatchSettings"]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How the servers of pools with `endpoints` are asked for their models and their load."""

    every_s: Annotated[float, Meta(ge=0.05, le=3_600)] = 1.0
    """The time from one round to the next, plus or minus 10 %."""
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 1.0
    """How long a server, or the lookup of its name, may take."""
    forget_after_s: Annotated[float, Meta(gt=0, le=86_400)] = 30.0
    """How long the models of a server that no longer responds stay known. Its load stays known for three
    rounds."""
