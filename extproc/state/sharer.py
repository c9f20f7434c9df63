"""The job that shares learned state: it publishes this replica's, reads the others', and updates the estimator.

Learning continues whatever the store does: a failed exchange is retried the next time, and what was read last
stays in use. The work on the deciding thread is done in bites that are shorter than most requests.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from extproc.cancelling import cancelled
from extproc.core.errors import ConfigurationError
from extproc.core.estimator.change import Change
from extproc.core.estimator.merging import bounded
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.sharing import Exchanged, Share
from extproc.core.estimator.tables import Tables, settled
from extproc.core.estimator.terms import Terms
from extproc.look_ups import run
from extproc.state.frame import HEAD_BYTES
from extproc.state.keeper import Ask, Current, FailureLog, KeeperListener, copied
from extproc.state.settings import StoreSettings
from extproc.state.store import FAILURES, Found, Store
from extproc.state.values import Base, bytes_of

__all__ = ["Sharer"]

# A replica that has published nothing for this many intervals is considered dead. If it was only cut off, it finds
# out when it comes back.
DEAD_AFTER: Final = 6
# Who does not know how far the base has faded folds later, by this factor, and leaves it to those who do.
LATER: Final = 4 / 3
# The supervisor considers a worker broken that has not started after 20 s.
BEGINS_WITHIN_S: Final = 10.0
# A base that has decayed to less than this share is written back, for replicas that start later.
WORTH_WRITING: Final = 0.5


class Sharer:
    """One replica's exchanges with the others; the estimator is only touched through `ask`."""

    def __init__(
        self, settings: StoreSettings, terms: Terms, estimator: Current, ask: Ask, listener: KeeperListener
    ) -> None:
        self._settings = settings
        self._terms = terms
        self._estimator = estimator
        self._ask = ask
        self._listener = listener
        self._share = Share(terms)
        self._failures = FailureLog(
            "learned state is not shared: the store failed", "learned state is shared again", store=settings.url
        )
        self._unusable = FailureLog(
            "some keys in the store cannot be read and are ignored", "all keys in the store can be read"
        )
        self._name, self._is_new = uuid.uuid4().hex, True
        self._peers: dict[str, tuple[Tables, int]] = {}
        self._new: set[str] = set()
        self._base: LearnedState | None = None
        self._is_from_file = False
        self._base_head = b""
        # Whether the base was written while this replica looked on: one that starts reads it as if it were new.
        self._knows_age, self._has_looked = True, False
        self._folded: tuple[str, ...] = ()  # the replicas that the base includes
        # What the estimator does not have yet of the last exchange: `_share` counts all of it as applied.
        self._to_apply: deque[Change] = deque()
        self._features: tuple[str, ...] = estimator().state().features

    def begin_with(self, view: LearnedState) -> None:
        """Use a state from a file as the base, unless the store turns out to hold anything."""
        self._share.adopt(view)
        self._base, self._is_from_file = bounded(view, self._terms), True

    def first(self) -> None:
        """Exchange once before serving, on the thread that owns the estimator; a failure is only reported."""

        async def here(function: Callable[[], object]) -> object:
            return function()

        async def once() -> None:
            store = self._store()
            ask, self._ask = self._ask, here
            try:
                await self._in_time(self._exchange(store))
            finally:
                self._ask = ask
                await store.close()

        run(self._try(once()))

    async def job(self) -> None:
        """Exchange until cancelled."""
        store = self._store()
        try:
            while True:
                await asyncio.sleep(self._settings.every_s)
                if not await self._try(self._exchange(store)):
                    # A primary that a failover has made a read-only replica keeps its connections, and refuses all
                    # writes: only a new connection leads to the server that has taken over its name.
                    await store.close()
        finally:
            await store.close()

    async def leave(self) -> None:
        """Publish what was learned since the last exchange; called on the estimator's thread, after the job."""
        store = self._store()

        async def once() -> None:
            for _ in range(2):  # the key may have vanished: folded just now, or flushed
                while self._to_apply:  # the job was cancelled in an exchange
                    self._apply_next()
                if (base := await store.base()) is not None and self._name in base.folded:
                    self._rename(base)
                await self._publish(store, self._compute(self._estimator().state()).own)
                if not self._is_new:
                    break
            # Those that stay may have started a moment ago. A base that is not in the store is what a file held.
            if self._knows_age and self._base is not None and self._base_head:
                await store.replace_base(self._base_head, Base(self._base, self._folded))

        try:
            await self._try(self._in_time(once()))
        finally:
            await store.close()

    async def _in_time(self, exchange: Coroutine[Any, Any, None]) -> None:
        """Await an exchange, with a limit on how long it may delay the start or the end of the router."""
        within_s = min(2 * self._settings.timeout_s, BEGINS_WITHIN_S)
        task = asyncio.create_task(exchange)
        if not (await asyncio.wait([task], timeout=within_s))[0]:
            await cancelled([task])
        if task.cancelled():
            raise TimeoutError(f"no answer in {within_s:g} s")
        await task

    async def _try(self, exchange: Awaitable[None]) -> bool:
        """Await an exchange, and report its outcome; return whether it was made."""
        try:
            await exchange
        except FAILURES as error:
            self._failures.failed(error)
            self._listener.state_exchanged(done=False, replicas=len(self._peers))
            return False
        self._failures.succeeded()
        self._listener.state_exchanged(done=True, replicas=len(self._peers))
        return True

    async def _exchange(self, store: Store) -> None:
        found = await store.look(excluding=self._name)
        self._read(found)
        if found.base is not None and self._name in found.base.folded:
            self._rename(found.base)
        else:
            self._share.holds(found.own_head)
        await self._apply()  # what is left of an exchange that was cut short
        view = await copied(self._estimator, self._ask)
        exchanged = await asyncio.to_thread(self._compute, view)
        await self._apply()
        # Only now, when all that was read is in use: a store may refuse to be written.
        if found.base is None and self._base is not None and (self._base.estimator_kind or self._folded):
            await store.begin_base(Base(self._base, self._folded))
        await self._publish(store, exchanged.own)
        await self._maintain(store, found)

    async def _apply(self) -> None:
        while self._to_apply:
            await self._ask(self._apply_next)

    def _apply_next(self) -> None:
        """Apply one bite, on the estimator's thread: whether it was applied does not depend on who awaits it."""
        self._share.skipped(self._estimator().shift(self._to_apply.popleft()))

    def _rename(self, base: Base) -> None:
        """Go on under another name: what was published under this one is in the base.

        That need not be the latest: a replica may be folded in the middle of its exchange, or after its last words
        did not reach the store.
        """
        self._share.give_up(base.version_of(self._name))
        self._name, self._is_new = uuid.uuid4().hex, True

    def _read(self, found: Found) -> None:
        if found.unusable:
            self._unusable.failed(ConfigurationError(" ".join(found.unusable)))
        else:
            self._unusable.succeeded()
        # A store that a failover or a snapshot has set back may still hold replicas that were folded.
        folded = set(found.base.folded if found.base is not None else self._folded)
        # Peers that vanish from the store, which may have been flushed, stay in use for DEAD_AFTER rounds.
        missed = {
            name: (state, rounds + 1)
            for name, (state, rounds) in self._peers.items()
            if name not in folded and rounds < DEAD_AFTER
        }
        self._new = {
            name for name, tables in found.replicas.items() if self._peers.get(name, (None, 0))[0] is not tables
        }
        self._peers = missed | {name: (state, 0) for name, state in found.replicas.items() if name not in folded}
        if found.base is not None and found.base_head != self._base_head:
            self._base, self._base_head = found.base.state, found.base_head
            self._folded = found.base.folded
            self._knows_age = self._has_looked or not found.replicas
        elif self._is_from_file and found.replicas:
            # The file holds what all replicas had learned, the one that wrote it among them: it would count twice.
            self._base = None
        self._is_from_file, self._has_looked = False, True

    def _compute(self, view: LearnedState) -> Exchanged:
        peers = [
            tables if name in self._new else settled(tables) for name, (tables, _rounds) in self._peers.items()
        ]
        exchanged = self._share.exchange(view, peers, self._base)
        self._to_apply.extend(exchanged.change.bites())
        if exchanged.base is not None:
            self._base = exchanged.base
        return exchanged

    async def _publish(self, store: Store, own: Tables) -> None:
        value = bytes_of(own)
        self._share.tell(value[:HEAD_BYTES])
        done = await store.publish(self._name, value, new=self._is_new)
        if not done and self._is_new:  # we wrote it before, and the store's confirmation was lost
            done = await store.publish(self._name, value, new=False)
        # If the key has vanished, it was folded (the next look shows that) or the store was flushed.
        self._is_new = not done

    async def _maintain(self, store: Store, found: Found) -> None:
        if found.expired:
            await store.drop_names(found.expired)
        dead_s = DEAD_AFTER * self._settings.every_s * (1 if self._knows_age else LATER)
        faded = None if self._base is None or not self._base_head else (self._base_head, self._base)
        for name in [name for name, silent_s in found.silent_s.items() if silent_s > dead_s]:
            await store.fold([name], dead_s=dead_s, faded=faded)
        if found.base is None or self._base is None or self._base_head != found.base_head:
            return
        if _weight(self._base) < WORTH_WRITING * _weight(found.base.state):
            await store.replace_base(found.base_head, Base(self._base, found.base.folded))

    def _store(self) -> Store:
        return Store(self._settings, self._terms, self._features)


def _weight(state: LearnedState) -> float:
    return sum(row.weight for row in state.categories) + sum(row.weight for row in state.models)
