"""One Listener that passes everything on to several."""

from collections.abc import Callable, Sequence

from extproc.core.listener import Listener

__all__ = ["FanOut"]

Call = Callable[..., None]


class FanOut(Listener):
    """Calls each listener in turn; those that have nothing to say to an event are not asked.

    What is called for each event is put together once: with a single taker, it is the taker's own method.
    Listeners may come and go, on the thread that calls them.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = list(listeners)
        self._compose()

    def add(self, listener: Listener) -> None:
        """Have a listener called from now on."""
        if listener not in self._listeners:
            self._listeners.append(listener)
            self._compose()

    def remove(self, listener: Listener) -> None:
        """Call a listener no more."""
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
