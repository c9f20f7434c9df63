"""One Listener that forwards events to several others."""

from collections.abc import Callable, Sequence

from extproc.core.listener import Listener

__all__ = ["FanOut"]

Call = Callable[..., None]


class FanOut(Listener):
    """Calls each listener in turn, except those that do not handle the event.

    The function for each event is composed in advance: with one handler, it is that handler's own method.
    Listeners may be added and removed, on the thread that calls them.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = list(listeners)
        self._compose()

    def add(self, listener: Listener) -> None:
        """Call a listener from now on."""
        if listener not in self._listeners:
            self._listeners.append(listener)
            self._compose()

    def remove(self, listener: Listener) -> None:
        """Stop calling a listener."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._compose()

    def _compose(self) -> None:
        for event, ignored in vars(Listener).items():
            if event.startswith("_"):
                continue
            takers = [
                getattr(each, event) for each in self._listeners if getattr(type(each), event) is not ignored
            ]
            vars(self).pop(event, None)
            if takers:
                setattr(self, event, takers[0] if len(takers) == 1 else _each(takers))


def _each(takers: Sequence[Call]) -> Call:
    def call(*arguments: object) -> None:
        for taker in takers:
            taker(*arguments)

    return call
