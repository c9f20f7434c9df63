"""The learned state of replicas in a Redis or Valkey: one key per replica, which only it writes, and a base.

    NAME:v2:FEATURES:replicas          set of the names of replicas
    NAME:v2:FEATURES:replica:ID        what one replica has learned itself
    NAME:v2:FEATURES:base              what was learned by replicas that have ended

FEATURES is a digest of the features that sums are over, so that incompatible versions of the router do not mix.
Nothing is locked. A replica that has not published for a while is folded into the base by the first other replica
that notices, in a transaction that fails if the base or the replica's key has changed meanwhile (WATCH). The base
lists the replicas that it includes; one that comes back and finds itself there continues under another name. The
age of a key follows from its time to live, by the store's clock; no other clock matters.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.asyncio as redis
from redis.exceptions import RedisError, WatchError

from extproc.core.errors import ConfigurationError
from extproc.core.estimator.merging import bounded, merged, without_model
from extproc.core.estimator.protocol import LearnedState
from extproc.core.estimator.state_tables import state_of
from extproc.core.estimator.tables import Tables
from extproc.core.estimator.terms import Terms
from extproc.state.columns import Indexes
from extproc.state.connection import connection_to
from extproc.state.frame import HEAD_BYTES
from extproc.state.replies import commit, members_of, milliseconds_in, part_in, parts_of, value_of
from extproc.state.settings import StoreSettings
from extproc.state.values import NO_BASE, Base, base_in, bytes_of, own_in, versioned

__all__ = ["FAILURES", "Found", "Store"]

# The ways a store can fail: refuse, hang, send nonsense, hold something that is not a state. Its client does not
# catch the errors of malformed numbers and of endlessly nested lists; a password that is not text is a ValueError.
FAILURES: Final = (RedisError, OSError, TimeoutError, ConfigurationError, ValueError, RecursionError)
MAX_FOLDED: Final = 2_000  # two for each replica
MAX_BLOB_BYTES: Final = 256 << 20
MAX_REPLICAS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a look at the store; `silent_s` is how long ago each replica last published.

    `expired` are the names of replicas whose keys are no more, `own_head` is the head of the excluded one's key.
    """

    base: Base | None
    base_head: bytes
    replicas: dict[str, Tables]
    silent_s: dict[str, float]
    unusable: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    own_head: bytes = b""


class Store:
    """The keys of routers with the same features. Methods raise one of FAILURES if the store fails."""

    def __init__(self, settings: StoreSettings, terms: Terms, features: Sequence[str]) -> None:
        self._settings = settings
        self.terms = terms
        digest = hashlib.blake2b("\n".join([terms.kind, *features]).encode(), digest_size=6).hexdigest()
        self._prefix = f"{settings.name}:v2:{digest}:"
        self._client: redis.Redis | None = None
        # What was read last, by key: its head and the decoded value. Idle replicas' keys need no second read.
        self._read: dict[str, tuple[bytes, Any]] = {}
        self._indexes = Indexes()

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(*FAILURES):
                await client.aclose()

    async def look(self, excluding: str = "") -> Found:
        """Return what all replicas except `excluding` have published; it writes nothing, which may be refused."""
        client = self._connected()
        self._indexes.next_round()
        names = [name for name in await members_of(client, self._key("replicas")) if name != excluding]
        names = sorted(names)[:MAX_REPLICAS]
        keys = [self._key("base"), *(self._replica(name) for name in names)]
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.getrange(key, 0, HEAD_BYTES - 1)
            pipe.pttl(key)
        pipe.getrange(self._replica(excluding), 0, HEAD_BYTES - 1)
        *results, own_head = await parts_of(pipe)
        heads = dict(zip(keys, map(part_in, results[::2]), strict=True))
        changed = [key for key, head in heads.items() if head and self._read.get(key, (b"",))[0] != head]
        # In one round trip: with one for each key, a first exchange over a slow network would not end in time.
        for key in changed:
            pipe.getrange(key, 0, MAX_BLOB_BYTES)
        for key, result in zip(changed, await parts_of(pipe), strict=True):
            if data := part_in(result):  # else it was folded in the meantime, and the next look shows the base
                self._take(key, data)
        self._read = {key: self._read[key] for key in keys if heads[key] and key in self._read}
        expired = tuple(name for name in names if not heads[self._replica(name)])
        left_ms = dict(zip(names, map(milliseconds_in, results[3::2]), strict=True))
        base = self._read.get(keys[0], (b"", None))
        published = {name: self._read.get(self._replica(name), (b"", None))[1] for name in names}
        return Found(
            base[1],
            base[0],
            {name: each for name, each in published.items() if each is not None},
            {name: self._silent_s(left_ms[name]) for name in names if name not in expired},
            tuple(key for key, (_, value) in self._read.items() if value is None),
            expired,
            part_in(own_head),
        )

    async def drop_names(self, names: Sequence[str]) -> None:
        """Remove the names of replicas whose keys are no more; one that lives adds its own when it publishes."""
        await cast("Any", self._connected().srem(self._key("replicas"), *names))

    async def publish(self, name: str, own: bytes, *, new: bool) -> bool:
        """Write a replica's own state to its key if the key exists (if `new`: if it does not); return whether."""
        client = self._connected()
        keep_ms = round(self._settings.keep_s * 1e3)
        done = await client.set(self._replica(name), own, px=keep_ms, nx=new, xx=not new)
        if done:
            await cast("Any", client.sadd(self._key("replicas"), name))
            await client.pexpire(self._key("replicas"), keep_ms)
            await client.pexpire(self._key("base"), keep_ms)
        return bool(done)

    async def base(self) -> Base | None:
        """Return the base, or None if there is none, or none that can be read."""
        data = await value_of(self._connected(), self._key("base"))
        return base_in(data, self.terms) if data else None

    async def begin_base(self, base: Base) -> None:
        """Make a base of what a replica knows of an earlier one, or of its file, unless there is a base."""
        data, keep_ms = bytes_of(base), round(self._settings.keep_s * 1e3)
        await self._connected().set(self._key("base"), data, px=keep_ms, nx=True)

    async def replace_base(self, head: bytes, base: Base) -> None:
        """Replace a base, unless it has changed since its head was read."""
        async with self._connected().pipeline() as pipe:
            await pipe.watch(self._key("base"))
            if await cast("Any", pipe.getrange(self._key("base"), 0, HEAD_BYTES - 1)) == head:
                pipe.multi()  # type: ignore[no-untyped-call]
                pipe.set(self._key("base"), bytes_of(base), px=round(self._settings.keep_s * 1e3))
                with suppress(WatchError):
                    await commit(pipe)

    async def fold(
        self, names: Sequence[str], *, dead_s: float, added: Base = NO_BASE, without: str = "",
        nothing: bool = False, faded: tuple[bytes, LearnedState] | None = None,
    ) -> bool:  # fmt: skip
        """Fold replicas into the base, if all of them were silent for `dead_s` seconds, and what is `added`.

        `faded` is the head of a base, and that base as it has faded since it was written: the others read a new
        one as if it were just written. What the base names is not added again: an earlier reply may have been
        lost, or the store set back.
        `without` names a model to leave out; `nothing` leaves out everything. Return whether it was done: it is
        not if another router has changed something meanwhile.
        """
        base_key, keys = self._key("base"), [self._replica(name) for name in names]
        async with self._connected().pipeline() as pipe:
            await pipe.watch(base_key, *keys)
            left_ms = [milliseconds_in(await cast("Any", pipe.pttl(key))) for key in keys]
            if any(self._silent_s(each) < dead_s for each in left_ms):
                return False
            blobs = [await value_of(pipe, key) for key in (base_key, *keys)]
            if any(blob is None for blob in blobs[1:]):
                return False
            before = (base_in(blobs[0], self.terms) if blobs[0] else None) or NO_BASE
            if added.folded and set(added.folded) <= set(before.folded):
                return True
            new = {name: blob for name, blob in zip(names, blobs[1:], strict=True) if name not in before.folded}
            own = [tables for blob in new.values() if (tables := own_in(blob or b"", self._indexes)) is not None]
            earlier = faded[1] if faded and faded[0] == (blobs[0] or b"")[:HEAD_BYTES] else before.state
            state = merged([earlier, *map(state_of, own), added.state], self.terms)
            state = bounded(without_model(state, without) if without else state, self.terms)
            named = [each for name, blob in new.items() for each in (name, versioned(name, blob or b""))]
            folded = [*before.folded, *named, *added.folded]
            base = Base(LearnedState("") if nothing else state, tuple(folded[-MAX_FOLDED:]))
            pipe.multi()  # type: ignore[no-untyped-call]
            pipe.set(base_key, bytes_of(base), px=round(self._settings.keep_s * 1e3))
            if keys:
                pipe.delete(*keys)
                pipe.srem(self._key("replicas"), *names)
            try:
                await commit(pipe)
            except WatchError:
                return False
            return True

    def _take(self, key: str, data: bytes) -> None:
        value = base_in(data, self.terms) if key == self._key("base") else own_in(data, self._indexes)
        self._read[key] = data[:HEAD_BYTES], value

    def _silent_s(self, left_ms: int) -> float:
        """Return how long ago a key was published that has so much of its time left."""
        return self._settings.keep_s - left_ms / 1e3

    def _key(self, what: str) -> str:
        return self._prefix + what

    def _replica(self, name: str) -> str:
        return f"{self._prefix}replica:{name}"

    def _connected(self) -> redis.Redis:
        if self._client is None:
            self._client = connection_to(self._settings)
        return self._client
