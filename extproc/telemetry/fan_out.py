"""One Listener that passes everything on to several."""

from collections.abc import Sequence

from extproc.core.errors import ResponseFault
from extproc.core.listener import Listener, Misconfiguration, Observation
from extproc.core.placing.decision import Decision
from extproc.core.placing.policy import Pool
from extproc.core.usage import Overflow

__all__ = ["FanOut"]


class FanOut:
    """Calls each listener in turn."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)

    def decided(self, decision: Decision) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.decided(decision)

    def passed(self) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.passed()

    def kept(self, decision: Decision) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.kept(decision)

    def released(self, decision: Decision) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.released(decision)

    def observed(self, observation: Observation) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.observed(observation)

    def not_learned(self, why: ResponseFault) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.not_learned(why)

    def overflowed(self, decision: Decision, overflow: Overflow, served_by: Pool) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.overflowed(decision, overflow, served_by)

    def repaired(self, decision: Decision) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.repaired(decision)

    def misconfigured(self, what: Misconfiguration) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.misconfigured(what)

    def failed(self, error: Exception) -> None:
        """Pass on."""
        for listener in self._listeners:
            listener.failed(error)
