"""Memory of prefixes: what a prompt begins with has often been counted before, in a response to an earlier turn.

The idea. Chats and agents send all that was said with each turn, and one turn more. The usage of turn n is the
exact count of what turn n + 1 begins with, template and tools included, so that

    estimate = known tokens + estimate of what is new        bound = known tokens + bound of what is new

and an error is one of the new part alone. Messages are hashed in order, each with its role and all before it,
after the model, the tenant, and what stands behind the messages (tools, documents), which has to be the same.
Responses put the hash of the whole conversation into the table; a request looks for those of its last LOOK_BACK
beginnings, longest first. The new part is estimated at the prices of the model, but it errs in its own way (an
answer and a question, no template), so residual, scale and q are its own (continued.py). Requests of either kind
teach their own scale and q alone, and the promise holds among both (Mondrian conformal prediction: Vovk and
others, 2003).

Safety. Entries hold counts and no text. The hash is Python's own of bytes, SipHash-1-3, whose key is drawn when
the process starts: 64 bits that nobody can aim at (unless PYTHONHASHSEED is set). An entry is believed only where
bytes and messages agree too. The tenant is in the key, so that none can tell what another has sent. So is the
generation of the model: what was counted before its prices started anew is never found again. Where the count of
the whole turns out to be no more than what was known, or far from it, the entry is forgotten: a template dropped
something, or the first count was wrong. What was beyond belief (clipped) is not remembered at all.

The table is of one process and is not shared: an entry is worth something for minutes, to the replica that the
next turn comes to. It is bounded in entries, and each is of one size (about 800 bytes). Prompts with media are
left out, since equal texts may stand beside different images; so are those longer than MAX_TEXT_BYTES, for the
time of hashing: .3 to .6 us for each KB.

Prior art: the prefix caches of vLLM and SGLang, which hash blocks of tokens, each with all before it; the rolling
hash of Karp and Rabin (1987), a polynomial, for which a second text of the same value is found with ease.
Rejected: keyed BLAKE2b of 128 bits: five times the time, more than all else of an estimate at 32 KB. q and scale
in common with whole prompts: those whose beginning is known were missed 1.7 to 2.4 % of the time, the others 7 %
among sessions.
"""

from collections import OrderedDict

import msgspec
import numpy as np
import numpy.typing as npt

from extproc.core.estimator.features import Features
from extproc.core.facts import NO_MEDIA, RequestFacts

__all__ = ["Known", "PrefixMemory", "Recalled"]

LOOK_BACK = 16
MAX_TEXT_BYTES = 256 * 1024


class Known(msgspec.Struct, frozen=True, gc=False):
    """What usage said of a conversation: its tokens, and what was looked at, in features."""

    tokens: int
    messages: int
    messages_bytes: int
    x: npt.NDArray[np.float32]


class Recalled(msgspec.Struct, frozen=True, gc=False):
    """The key of a conversation, and the longest beginning of it that is known, if there is one."""

    key: int
    messages: int
    messages_bytes: int
    known: Known | None = None
    known_key: int = 0


class PrefixMemory:
    """Conversations whose tokens are known, the least recently used forgotten first."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._table: OrderedDict[int, Known] = OrderedDict()

    def recall(self, facts: RequestFacts, tenant: str, generation: int) -> Recalled | None:
        """Return what is known of a conversation; None for what is no conversation, or is not remembered."""
        turns, text = facts.turns, facts.text
        if not turns or facts.media is not NO_MEDIA or len(text) > MAX_TEXT_BYTES or facts.unseen_history:
            return None
        start, key, keys = 0, hash((facts.model, generation, tenant, facts.tools, text[turns[-1][1] :])), []
        for role, end in turns:
            key = hash((key, role, end, text[start:end]))
            keys.append(key)
            start = end
        if len(keys) > 1:
            for place in range(len(keys) - 2, max(len(keys) - 2 - LOOK_BACK, -1), -1):
                known = self._table.get(keys[place])
                if known and known.messages == place + 1 and known.messages_bytes == turns[place][1]:
                    return Recalled(key, len(turns), start, known, keys[place])
        return Recalled(key, len(turns), start)

    def at_hand(self, recalled: Recalled | None) -> Recalled | None:
        """Return what was recalled with what is known of it, which stayed here if `Known.x` is empty.

        None when it is not known here, or no more: then nothing is learned of the conversation.
        """
        if recalled is None or recalled.known is None or recalled.known.x.size:
            return recalled
        known = self._table.get(recalled.known_key)
        if known is None or known.tokens != recalled.known.tokens:
            return None
        return Recalled(recalled.key, recalled.messages, recalled.messages_bytes, known, recalled.known_key)

    def learn(self, recalled: Recalled, tokens: int, x: Features) -> None:
        """Remember what usage said of a conversation."""
        if recalled.known_key in self._table:
            self._table.move_to_end(recalled.known_key)  # its other branches may come
        known = Known(tokens, recalled.messages, recalled.messages_bytes, x.astype(np.float32))
        self._table[recalled.key] = known
        self._table.move_to_end(recalled.key)
        if len(self._table) > self._max_entries:
            self._table.popitem(last=False)

    def forget(self, key: int) -> None:
        """Called when an entry has turned out to be wrong."""
        self._table.pop(key, None)

    def __len__(self) -> int:
        return len(self._table)
