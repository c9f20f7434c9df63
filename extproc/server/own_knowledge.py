"""Changes to what this process has learned, made while it is routing.

An addition is made in bites, like what replicas share with each other: no request waits long, and what is learned
meanwhile is kept. To forget, the estimator is replaced, as in a reload: exchanges that have begun still teach the
old one, which is then dropped.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from extproc.core.estimator import make_estimator
from extproc.core.estimator.change import Change
from extproc.core.estimator.merging import bounded, without_model
from extproc.core.estimator.protocol import Estimator, LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sharing import Share
from extproc.core.estimator.terms import Terms
from extproc.server.loop import Loop
from extproc.state.changing import NotDone, left_out, unknown

__all__ = ["OwnKnowledge"]

ANSWERS_WITHIN_S: Final = 5.0


class OwnKnowledge:
    """The estimator in force; for any thread but the loop's.

    `settings` and `estimator` return those in force; `replace` puts another estimator in force. All are called
    with `lock` held, so that nothing else replaces the estimator meanwhile.
    """

    def __init__(
        self,
        loop: Loop,
        lock: threading.Lock,
        settings: Callable[[], EstimatorSettings],
        estimator: Callable[[], Estimator],
        replace: Callable[[Estimator], None],
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._settings = settings
        self._estimator = estimator
        self._replace = replace

    def add(self, state: LearnedState) -> str:
        """Add what another router has learned, as if its responses had arrived now."""
        with self._lock, _or_not_done():
            settings, terms = self._settings(), Terms.of(self._settings())
            make_estimator(settings).load(state)  # raises if it cannot be used
            change = Share(terms).exchange(self._view(), [], bounded(state, terms)).change
            estimator, skipped = self._estimator(), Change()
            for bite in change.bites():
                left = self._loop.ask(partial(estimator.shift, bite), ANSWERS_WITHIN_S)
                skipped = Change(
                    skipped.models + left.models,
                    skipped.categories + left.categories,
                    skipped.outputs + left.outputs,
                )
        return _summary(state, change, skipped)

    def forget(self, model: str) -> str:
        """Forget everything, or one model."""
        with self._lock, _or_not_done():
            view, after = self._view(), make_estimator(self._settings())
            if model:
                rest = without_model(view, model)
                if rest == view:
                    return unknown(model)
                after.load(rest)
            self._replace(after)
        return f"forgot model {model!r}" if model else "forgot everything"

    def undo(self, model: str) -> str:
        """Restore a model's previous prices."""
        with self._lock, _or_not_done():
            if not self._loop.ask(partial(self._estimator().undo, model), ANSWERS_WITHIN_S):
                return f"model {model!r} has no previous prices to restore"
        return f"restored the previous prices of model {model!r}"

    def _view(self) -> LearnedState:
        return LearnedState.joined(self._loop.ask_each(self._estimator().parts, ANSWERS_WITHIN_S))


@contextmanager
def _or_not_done() -> Iterator[None]:
    """Raise NotDone if the loop does not answer in time."""
    try:
        yield
    except TimeoutError as error:
        raise NotDone("the router is too busy to apply the change") from error


def _summary(state: LearnedState, change: Change, skipped: Change) -> str:
    """Describe what was added, and which models were left out."""
    done = {each.model for each in change.models} - {each.model for each in skipped.models}
    left = sorted(each.model for each in state.models if each.observations and each.model not in done)
    rows = len(change.categories) + len(change.outputs) - len(skipped.categories) - len(skipped.outputs)
    summary = f"models added: {len(done)}, with {rows} rows of categories and output lengths"
    return f"{summary}; {left_out(left)}" if left else summary
