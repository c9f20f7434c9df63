"""Serialisation of a decision for the gateway's access log: all that learning needs, and no text.

The decision is reconstructed from it, so learning needs no memory of the request: any replica with the same pools
and kind of estimator can learn from any entry. There is one exception: of the beginning of a conversation only the
key is sent (recalled.py). It is left out if it does not fit, or if counts are sent as single bytes, which are too
coarse to subtract a beginning from; then nothing is remembered about the conversation.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from extproc.access_log.counts import FINE_BYTES, counts_from, packed_counts
from extproc.access_log.recalled import PackedRecalled, packed_recalled, recalled_from
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import FEATURE_NAMES
from extproc.core.estimator.protocol import CategoryKey, Estimate, Refused, Source
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import NO_HEAD, Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.core.placing.stratum import stratum_of

__all__ = ["Payloads"]

FORMAT: Final = 3
VERSION_BYTES: Final = 4
# Fractional tokens are sent as integers in units of 1/PARTS of a token: this is short and accurate enough.
PARTS: Final = 16
HEADERS_BYTES: Final = 3  # the header of a byte string in MessagePack
_CLOSED_SETS: Final = (Api, Source, Reason, Refused, Mode)


class _Evidence(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`Evidence` and the rest of the estimate.

    The fields `tokens`, `other_tokens`, `prompt_tokens` and `prompt_bound` are in 1/PARTS of a token; `who` is
    Evidence.source.
    """

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
    other_tokens: int


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
    recalled: PackedRecalled | None
    counted: tuple[int, ...] | None
    counts: bytes | None


class Payloads:
    """Packs and unpacks decisions for routers with these pools and this `estimator.kind`.

    `version` identifies format, pools and kind: what one kind of estimator notes about a text teaches no other.
    """

    def __init__(self, pools: Sequence[Pool], kind: str) -> None:
        self._pools = tuple(pools)
        closed = [value for names in _CLOSED_SETS for value in names]
        names = [pool.name for pool in pools]
        said = repr((FORMAT, FEATURE_NAMES, closed, names, Evidence.__struct_fields__, kind))
        self.version = blake2b(said.encode(), digest_size=VERSION_BYTES).digest()

    def pack(self, decision: Decision, now_s: float, most_bytes: int) -> bytes | None:
        """Return a decision in at most `most_bytes` bytes; None if it does not fit or teaches nothing.

        It does not fit if the names of the model and the tenant are long: together more than 50 bytes for text of
        many scripts whose tokens were counted, 120 for a short text.
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
            packed_recalled(evidence.recalled),
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
                # The counts are the last field; they replace its nil, which is one byte.
                return data[:-1] + _encode(counts)
        return None

    def unpack(self, data: bytes, head: RequestHead = NO_HEAD) -> tuple[Decision, int]:
        """Return a decision of the request with this head, and the time when it was made, in seconds.

        Raises ValueError for data that `pack` of this version did not produce.
        """
        try:
            said = _DECODER.decode(data)
            x = None if said.counts is None else counts_from(said.counts)
            evidence, flags = said.evidence, said.evidence.flags
            category = CategoryKey(said.model, said.key)
            budget = TokenBudget(*said.budget)
            estimate = Estimate(
                evidence.prompt_tokens / PARTS,
                evidence.prompt_bound / PARTS,
                budget.output_tokens,
                flags & _DECLARED != 0,
                _SOURCES[evidence.source],
                category,
                Evidence(
                    None if evidence.refused is None else _REFUSALS[evidence.refused],
                    evidence.tokens / PARTS,
                    evidence.text_bytes,
                    evidence.output_limit,
                    evidence.sequences,
                    flags & _ONE_PROMPT != 0,
                    x,
                    evidence.media_tokens,
                    recalled_from(said.recalled, continued=flags & _CONTINUED != 0),
                    flags & _OF_TENANT != 0,
                    evidence.who,
                    evidence.number,
                    flags & _FORCED != 0,
                    evidence.other_tokens / PARTS,
                    flags & _CUT_TO_FIT != 0,
                ),
            )
            stream = said.flags & 2 != 0
            decision = Decision(
                self._pools[said.pool],
                _REASONS[said.reason],
                _MODES[said.mode],
                routed=said.flags & 1 != 0,
                api=_APIS[said.api],
                model=said.model,
                estimate=estimate,
                budget=budget,
                stream=stream,
                learnable=said.flags & 4 != 0,
                head=head,
                counted=None if said.counted is None else Counted(said.counted),
                stratum=stratum_of(evidence.output_limit, estimate.prompt_tokens, stream=stream),
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
_ONE_PROMPT, _DECLARED, _CONTINUED, _OF_TENANT, _FORCED, _CUT_TO_FIT = 1, 2, 4, 8, 16, 32
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
        | evidence.of_tenant * _OF_TENANT
        | evidence.output_forced * _FORCED
        | evidence.cut_to_fit * _CUT_TO_FIT,
        evidence.media_tokens,
        _SOURCE[estimate.source],
        evidence.source,
        evidence.number,
        round(evidence.other_tokens * PARTS),
    )
