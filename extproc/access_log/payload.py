"""A decision as bytes that travel through the gateway's access log: what learning from a response needs, no text.

The whole decision is made anew from it, so that learning needs no memory of the request: any replica with the same
pools can take any entry. But for one thing: what is known of a conversation's beginning (prefixes.py) stays with
the process that knows it, and only its key travels. Counts of one byte are too coarse to take a beginning off: the
key stays away then, too, and of that conversation nothing is remembered.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np
from msgspec.structs import replace

from extproc.access_log.counts import FINE_BYTES, counts_from, packed_counts
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import FEATURE_NAMES
from extproc.core.estimator.prefixes import Known, Recalled
from extproc.core.estimator.protocol import CategoryKey, Estimate, Refused, Source
from extproc.core.facts import Api
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.core.placing.stratum import stratum_of

__all__ = ["Payloads"]

FORMAT: Final = 2
VERSION_BYTES: Final = 4
# Tokens are told in these parts, as integers: so they are short, and no error that counts.
PARTS: Final = 16
HEADERS_BYTES: Final = 3  # of a byte string in MessagePack
_CLOSED_SETS: Final = (Api, Source, Reason, Refused, Mode)


class _Evidence(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`Evidence`, and what the estimate says beside it; tokens in PARTS, `who` is the half of Evidence.source."""

    tokens: int
    prompt_tokens: int
    prompt_bound: int
    refused: int | None
    text_bytes: int
    output_limit: int | None
    sequences: int
    flags: int
    media_tokens: int
    source: int
    who: int
    number: int


class _Recalled(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`Recalled`; `origin` tells the processes apart whose keys differ."""

    origin: int
    key: int
    messages: int
    messages_bytes: int
    known_key: int
    known_tokens: int


class _Payload(msgspec.Struct, array_like=True, frozen=True, gc=False):
    made_s: int
    pool: int
    reason: int
    mode: int
    api: int
    flags: int
    model: str
    key: str
    budget: tuple[int, int, int, int, int]
    evidence: _Evidence
    recalled: _Recalled | None
    counted: tuple[int, ...] | None
    counts: bytes | None


class Payloads:
    """Packs decisions and unpacks them, for routers with these pools; `version` tells them from all others."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = tuple(pools)
        closed = [value for names in _CLOSED_SETS for value in names]
        said = repr((FORMAT, FEATURE_NAMES, closed, [pool.name for pool in pools], Evidence.__struct_fields__))
        self.version = blake2b(said.encode(), digest_size=VERSION_BYTES).digest()

    def pack(self, decision: Decision, now_s: float, most_bytes: int) -> bytes | None:
        """Return a decision in at most so many bytes; None when it cannot teach, or has no room.

        There is no room when the names of model and tenant are long (from about 100 bytes on).
        """
        estimate, budget = decision.estimate, decision.budget
        if estimate is None or budget is None or not isinstance(estimate.evidence, Evidence):
            return None
        evidence = estimate.evidence
        said = _Payload(
            int(now_s),
            self._pools.index(decision.pool),
            _REASON[decision.reason],
            _MODE[decision.mode],
            _API[decision.api],
            decision.routed | decision.stream << 1 | decision.learnable << 2,
            decision.model,
            estimate.category.key,
            (
                budget.prompt_tokens,
                budget.prompt_bound,
                budget.output_tokens,
                budget.sequences,
                budget.all_prompts_tokens,
            ),
            _packed(estimate, evidence),
            _packed_recalled(evidence.recalled),
            None if decision.counted is None else decision.counted.features,
            None,
        )
        if evidence.x is None:
            data = _encode(said)
            return data if len(data) <= most_bytes else None
        for count_bytes, keeps in ((FINE_BYTES, True), (FINE_BYTES, False), (1, False)):
            data = _encode(said if keeps or said.recalled is None else replace(said, recalled=None))
            counts = packed_counts(evidence.x, most_bytes - len(data) - HEADERS_BYTES, count_bytes)
            if counts is not None:
                # The counts come last, and were nil, which is a byte.
                return data[:-1] + _encode(counts)
        return None

    def unpack(self, data: bytes) -> tuple[Decision, int]:
        """Return a decision, without its request's head, and when it was made, in seconds.

        Raises ValueError for what `pack` has not made under this version.
        """
        try:
            said = _DECODER.decode(data)
            x = None if said.counts is None else counts_from(said.counts)
            evidence = said.evidence
            category = CategoryKey(said.model, said.key)
            budget = TokenBudget(*said.budget)
            estimate = Estimate(
                evidence.prompt_tokens / PARTS,
                evidence.prompt_bound / PARTS,
                budget.output_tokens,
                bool(evidence.flags & _DECLARED),
                _SOURCES[evidence.source],
                category,
                Evidence(
                    None if evidence.refused is None else _REFUSALS[evidence.refused],
                    evidence.tokens / PARTS,
                    evidence.text_bytes,
                    evidence.output_limit,
                    evidence.sequences,
                    bool(evidence.flags & _ONE_PROMPT),
                    x,
                    evidence.media_tokens,
                    _recalled(said.recalled, continued=bool(evidence.flags & _CONTINUED)),
                    bool(evidence.flags & _OF_TENANT),
                    evidence.who,
                    evidence.number,
                ),
            )
            decision = Decision(
                self._pools[said.pool],
                _REASONS[said.reason],
                _MODES[said.mode],
                routed=bool(said.flags & 1),
                api=_APIS[said.api],
                model=said.model,
                estimate=estimate,
                budget=budget,
                stream=bool(said.flags & 2),
                learnable=bool(said.flags & 4),
                text_bytes=evidence.text_bytes,
                counted=None if said.counted is None else Counted(said.counted),
                stratum=stratum_of(
                    evidence.output_limit, evidence.prompt_tokens / PARTS, stream=bool(said.flags & 2)
                ),
            )
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
            raise ValueError(str(error)) from error
        return decision, said.made_s


_APIS, _SOURCES, _REASONS = tuple(Api), tuple(Source), tuple(Reason)
_REFUSALS, _MODES = tuple(Refused), tuple(Mode)
_API = {value: number for number, value in enumerate(_APIS)}
_SOURCE = {value: number for number, value in enumerate(_SOURCES)}
_REASON = {value: number for number, value in enumerate(_REASONS)}
_REFUSAL = {value: number for number, value in enumerate(_REFUSALS)}
_MODE = {value: number for number, value in enumerate(_MODES)}
_ONE_PROMPT, _DECLARED, _CONTINUED, _OF_TENANT = 1, 2, 4, 8
# Python's hash of bytes has a key that is drawn when the process starts; those of conversations are such hashes.
_ORIGIN: Final = hash(b"dualpool") & 0xFFFFFFFF

_encode = msgspec.msgpack.Encoder().encode
_DECODER = msgspec.msgpack.Decoder(_Payload)


def _packed(estimate: Estimate, evidence: Evidence) -> _Evidence:
    return _Evidence(
        round(evidence.tokens * PARTS),
        round(estimate.prompt_tokens * PARTS),
        round(estimate.prompt_bound * PARTS),
        None if evidence.refused is None else _REFUSAL[evidence.refused],
        evidence.text_bytes,
        evidence.output_limit,
        evidence.sequences,
        evidence.one_prompt * _ONE_PROMPT
        | estimate.output_declared * _DECLARED
        | (evidence.recalled is not None and evidence.recalled.known is not None) * _CONTINUED
        | evidence.of_tenant * _OF_TENANT,
        evidence.media_tokens,
        _SOURCE[estimate.source],
        evidence.source & 0xFFFFFFFF,
        evidence.number,
    )


def _packed_recalled(recalled: Recalled | None) -> _Recalled | None:
    if recalled is None:
        return None
    known_tokens = 0 if recalled.known is None else recalled.known.tokens
    return _Recalled(
        _ORIGIN, recalled.key, recalled.messages, recalled.messages_bytes, recalled.known_key, known_tokens
    )


def _recalled(said: _Recalled | None, *, continued: bool) -> Recalled | None:
    """Return what the estimator can find again what it knew by; it is empty for another process's key."""
    if said is None or said.origin != _ORIGIN:
        return Recalled(0, 0, 0, _KNOWN_ELSEWHERE) if continued else None
    known = Known(said.known_tokens, 0, 0, _NOTHING) if continued else None
    return Recalled(said.key, said.messages, said.messages_bytes, known, said.known_key)


_NOTHING: Final = np.empty(0, np.float32)
_KNOWN_ELSEWHERE: Final = Known(0, 0, 0, _NOTHING)
