"""The state in the shared store, read and changed from outside: by a command, or at a router's admin port."""

import uuid
from collections.abc import Awaitable, Callable
from functools import reduce
from typing import Final, TypeVar

from extproc.core.errors import ConfigurationError
from extproc.core.estimator import make_estimator
from extproc.core.estimator.merging import merged, without_model
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.state_tables import state_of
from extproc.core.estimator.terms import Terms
from extproc.look_ups import run
from extproc.state.changing import NotDone, left_out
from extproc.state.settings import StoreSettings
from extproc.state.store import FAILURES, Store
from extproc.state.values import Base

__all__ = ["InStore"]

TRIES: Final = 20
TAKEN: Final = "each router adopts the change at its next exchange"

T = TypeVar("T")


class InStore:
    """The knowledge of all replicas that share a store. Methods raise NotDone if the store does not respond."""

    def __init__(self, settings: StoreSettings, estimator: EstimatorSettings) -> None:
        self._settings = settings
        self._estimator = estimator

    def read(self) -> LearnedState:
        """Return the merged knowledge of all replicas and the base."""
        return self._with_store(_all_of)

    def add(self, state: LearnedState) -> str:
        """Add a state to the base, without models of another generation than the replicas': merging would drop one
        of the two, perhaps what all replicas know.
        """
        make_estimator(self._estimator).load(state)  # raises if routers could not use it
        left: list[str] = []
        name = uuid.uuid4().hex  # like a replica's: if the store's confirmation is lost, it is not added again

        async def add(store: Store) -> bool:
            held = {row.model: row.generation for row in (await _all_of(store)).models if row.observations}
            left[:] = [row.model for row in state.models if held.get(row.model, row.generation) != row.generation]
            rest = reduce(without_model, left, state)
            return await store.fold([], dead_s=0, added=Base(rest, (name,)))

        self._with_store(lambda store: self._tried(add, store))
        return f"added to the store; {TAKEN}{f'; {left_out(left)}' if left else ''}"

    def forget(self, model: str) -> str:
        """Fold everything that is published into the base, except what is to be forgotten."""
        if model and without_model(state := self.read(), model) == state:
            return f"the store holds nothing about model {model!r}"

        async def forget(store: Store) -> bool:
            names = sorted((await store.look()).silent_s)
            return await store.fold(names, dead_s=-1, without=model, nothing=not model)

        self._with_store(lambda store: self._tried(forget, store))
        return f"the store has forgotten {f'model {model!r}' if model else 'everything'}; {TAKEN}"

    @staticmethod
    async def _tried(act: Callable[[Store], Awaitable[bool]], store: Store) -> None:
        """Call `act`; retry while routers change the store first."""
        for _ in range(TRIES):
            if await act(store):
                return
        raise NotDone("routers changed the store during each attempt; try again")

    def _with_store(self, act: Callable[[Store], Awaitable[T]]) -> T:
        features = make_estimator(self._estimator).state().features
        store = Store(self._settings, Terms.of(self._estimator), features)

        async def once() -> T:
            try:
                return await act(store)
            finally:
                await store.close()

        try:
            return run(once())
        except ConfigurationError:
            raise
        except FAILURES as error:
            raise NotDone(f"the store failed: {type(error).__name__}: {error}") from error


async def _all_of(store: Store) -> LearnedState:
    found = await store.look()
    states = [state_of(tables) for tables in found.replicas.values()] + ([found.base.state] if found.base else [])
    return merged(states, store.terms)
