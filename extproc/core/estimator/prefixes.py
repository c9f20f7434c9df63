"""A memory of prefixes: the beginning of a prompt was often counted already, in an earlier turn's response.

The idea. Chats and agents resend the whole conversation with each turn, and add to it. The usage of turn n is the
exact count of what turn n + 1 begins with, template and tools included, so

    estimate = known tokens + estimate of what is new        bound = known tokens + bound of what is new

and only the new part can be wrong. The hash begins with the model, the tenant, and the text that follows the
messages (tools, documents), all of which must be the same. Then the messages are added in order, each with its
role. A response adds the hash of its whole conversation to the table; a request looks up its last LOOK_BACK
beginnings, longest first. The new part is estimated at the prices of the model, but it errs differently (an answer
and a question, no template), so it has a residual, scale and q of its own (continued.py). Requests of either kind
teach only their own scale and q, and the promise holds for each kind separately (Mondrian conformal prediction:
Vovk and others, 2003).

Safety. Entries contain counts and no text. The hash is Python's own hash of bytes, SipHash-1-3, with a key drawn
when the process starts: 64 bits, for which nobody can construct a collision (unless PYTHONHASHSEED is set). An
entry is believed only if bytes and messages agree, too. The tenant is part of the key, so no tenant can find out
what another has sent. So is the generation of the model: counts from before its prices were replaced are never
found again. If the count of a whole conversation turns out to be at most the known one, or far from the estimate,
the entry is forgotten: a template dropped something, or the first count was wrong. A count that was not believed
(clipped) is not remembered.

The table belongs to one process and is not shared: an entry is useful for minutes, to the replica that receives
the next turn. The number of entries is bounded, and they are all of one size (about 800 bytes, most of them the
features, whose memory is taken at the start: what the process needs does not depend on how long it has run).
Prompts with media are left out, since the same text may come with different images; so are those longer than
MAX_TEXT_BYTES, because hashing takes .3 to .6 us per KB.

Prior art: the prefix caches of vLLM and SGLang, which hash blocks of tokens, each with everything before it; the
rolling hash of Karp and Rabin (1987), a polynomial, for which a second text with the same value is easy to find.
Rejected: keyed BLAKE2b of 128 bits: five times the time, more than the rest of an estimate at 32 KB. One q and
scale shared with whole prompts: requests with a known beginning exceeded their bound 1.7 to 2.4 % of the time; in
sessions, the other requests did 7 % of the time.
"""

from collections import OrderedDict

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import FEATURE_NAMES, Features
from extproc.core.facts import NO_MEDIA, RequestFacts

__all__ = ["Known", "PrefixMemory", "Recalled"]

LOOK_BACK = 16
MAX_TEXT_BYTES = 256 * 1024


class Known(msgspec.Struct, frozen=True, gc=False):
    """What usage reported for a conversation: its tokens, and the features that they were counted for."""

    tokens: int
    messages: int
    messages_bytes: int
    x: npt.NDArray[np.float32]


class Recalled(msgspec.Struct, frozen=True, gc=False):
    """The key of a conversation, and its longest known beginning, if there is one."""

    key: int
    messages: int
    messages_bytes: int
    known: Known | None = None
    known_key: int = 0


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """Known, with the row of the memory's array that has its features."""

    tokens: int
    messages: int
    messages_bytes: int
    row: int


class PrefixMemory:
    """Conversations whose tokens are known; the least recently used is evicted first."""

    def __init__(self, max_entries: int) -> None:
        self._table: OrderedDict[int, _Entry] = OrderedDict()
        # The rows below len(table) + len(freed) are in use or freed. Written to, so that the memory is taken now
        # and not in the course of days.
        self._features = np.full((max_entries, len(FEATURE_NAMES)), 0.0, np.float32)
        self._freed_rows: list[int] = []

    def recall(self, facts: RequestFacts, tenant: str, generation: int) -> Recalled | None:
        """Return what is known of a conversation; None if the request is not one, or not one to remember."""
        turns, text = facts.turns, facts.text
        if not turns or facts.media is not NO_MEDIA or len(text) > MAX_TEXT_BYTES or facts.unseen_history:
            return None
        tools = facts.tools, facts.unused_tools_bytes, text[turns[-1][1] :]
        start, key, keys = 0, hash((facts.model, generation, tenant, tools)), []
        for role, end in turns:
            key = hash((key, role, end, text[start:end]))
            keys.append(key)
            start = end
        if len(keys) > 1:
            for place in range(len(keys) - 2, max(len(keys) - 2 - LOOK_BACK, -1), -1):
                entry = self._table.get(keys[place])
                if entry and entry.messages == place + 1 and entry.messages_bytes == turns[place][1]:
                    return Recalled(key, len(turns), start, self._known(entry), keys[place])
        return Recalled(key, len(turns), start)

    def at_hand(self, recalled: Recalled | None) -> Recalled | None:
        """Return what was recalled, with `known` from the table if it came back through the log without `Known.x`.

        Return None if the entry is not in the table, or no longer the same: then nothing is learned from the
        conversation.
        """
        if recalled is None or recalled.known is None or recalled.known.x.size:
            return recalled
        entry = self._table.get(recalled.known_key)
        if entry is None or entry.tokens != recalled.known.tokens:
            return None
        known = self._known(entry)
        return Recalled(recalled.key, recalled.messages, recalled.messages_bytes, known, recalled.known_key)

    def learn(self, recalled: Recalled, tokens: int, x: Features) -> None:
        """Remember what usage reported for a conversation."""
        if not len(self._features):
            return  # the response of a request that another router decided, one that has a memory
        if recalled.known_key in self._table:
            self._table.move_to_end(recalled.known_key)  # other branches of it may follow
        self.forget(recalled.key)
        if len(self._table) == len(self._features):
            self.forget(next(iter(self._table)))
        row = self._freed_rows.pop() if self._freed_rows else len(self._table)
        self._features[row] = x
        self._table[recalled.key] = _Entry(tokens, recalled.messages, recalled.messages_bytes, row)

    def forget(self, key: int) -> None:
        """Called when an entry has proved wrong."""
        entry = self._table.pop(key, None)
        if entry is not None:
            self._freed_rows.append(entry.row)

    def _known(self, entry: _Entry) -> Known:
        # A copy: the row may belong to another conversation before the response comes.
        return Known(entry.tokens, entry.messages, entry.messages_bytes, self._features[entry.row].copy())

    def __len__(self) -> int:
        return len(self._table)
