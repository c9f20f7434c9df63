"""The gateway message for each action."""

from typing import Any

import msgspec
import pytest
from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import CommonResponse, ProcessingResponse
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.estimator.protocol import CategoryKey, Estimate, Source
from extproc.core.exchange.events import (
    Close,
    ContinueBody,
    ContinueHeaders,
    ContinueTrailers,
    EchoBody,
    Phase,
    Reply,
)
from extproc.core.facts import Api
from extproc.core.headers import HeaderNames
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.wire.encode import Encoder

NAMES = HeaderNames("x-pool", "x-estimate", "x-reason")
ESTIMATE = Estimate(30.0, 45.0, 5, output_declared=True, source=Source.LEARNED, category=CategoryKey("m", "latin"))
BUDGET = TokenBudget(
    prompt_tokens=30, prompt_bound=50, output_tokens=5, sequences=2, all_prompts_tokens=30
)  # at most 55
SHORT, LONG = Pool("short", 1_000), Pool("long", 9_000)


def decision(pool: Pool, mode: Mode = Mode.ENFORCE, budget: TokenBudget | None = None) -> Decision:
    """Return a decision for a pool, as the router would make it."""
    reason = Reason.FITS if pool is SHORT else Reason.TOO_LONG
    routed = pool is SHORT and mode is Mode.ENFORCE
    estimate = None if budget is None else ESTIMATE
    return Decision(pool, reason, mode, routed=routed, api=Api.CHAT, estimate=estimate, budget=budget)


def encoded(action: Reply, encoder: Encoder | None = None) -> ProcessingResponse:
    """Return the message for an action."""
    message: ProcessingResponse = ProcessingResponse.FromString((encoder or Encoder(NAMES)).encode(action))
    return message


def headers_set(common: Any) -> dict[str, bytes]:
    """Return the headers that a message sets."""
    assert not any(option.header.value for option in common.header_mutation.set_headers), "Envoy leaves it empty"
    assert {HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD} >= {
        option.append_action for option in common.header_mutation.set_headers
    }, "a client's value stays beside ours"
    return {option.header.key: option.header.raw_value for option in common.header_mutation.set_headers}


def test_a_decision_with_the_body_sets_the_headers_there() -> None:
    """In BUFFERED mode the reply to the body has the mutation, clears the route cache and sets metadata."""
    message = encoded(ContinueBody(Phase.REQUEST, decision(SHORT, budget=BUDGET)))
    assert "request_body" == message.WhichOneof("response")
    common = message.request_body.response
    assert {"x-pool": b"short", "x-estimate": b"55", "x-reason": b"fits"} == headers_set(common)
    assert common.clear_route_cache
    assert [] == list(common.header_mutation.remove_headers)
    assert not common.HasField("body_mutation")
    assert {
        "pool": "short",
        "reason": "fits",
        "mode": "enforce",
        "source": "learned",
        "estimate": 55.0,
        "prompt_tokens": 30.0,
    } == (json_format.MessageToDict(message.dynamic_metadata)["dualpool"])


@pytest.mark.parametrize("action", [ContinueHeaders, ContinueBody])
def test_a_clients_own_pool_header_is_removed_if_none_is_set(action: Any) -> None:
    """No header means the default pool; one sent by the client would opt in to a smaller pool."""
    message = encoded(action(Phase.REQUEST, decision(LONG)))
    common = message.request_body.response if action is ContinueBody else message.request_headers.response
    assert ["x-pool"] == list(common.header_mutation.remove_headers)
    assert {"x-reason": b"too_long"} == headers_set(common)
    assert common.clear_route_cache
    assert {"pool": "long", "reason": "too_long", "mode": "enforce"} == (
        json_format.MessageToDict(message.dynamic_metadata)["dualpool"]
    )


@pytest.mark.parametrize("action", [ContinueHeaders, ContinueBody])
@pytest.mark.parametrize("pool", [SHORT, LONG])
def test_a_shadow_decides_in_metadata_and_changes_nothing(action: Any, pool: Pool) -> None:
    """In shadow mode the message has metadata for access logs, but no mutation, and leaves the route as it is."""
    message = encoded(action(Phase.REQUEST, decision(pool, Mode.SHADOW, BUDGET)))
    metadata = json_format.MessageToDict(message.dynamic_metadata)["dualpool"]
    assert (pool.name, "shadow", 55.0) == (metadata["pool"], metadata["mode"], metadata["estimate"])
    common = message.request_body.response if action is ContinueBody else message.request_headers.response
    assert CommonResponse() == common


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("ended", [False, True])
def test_an_echo_returns_the_piece(phase: Phase, *, ended: bool) -> None:
    """A full-duplex piece is returned unchanged, with its end-of-stream flag, and nothing else."""
    message = encoded(EchoBody(phase, b"\x00a piece\xff", ended))
    assert f"{phase.name.lower()}_body" == message.WhichOneof("response")
    body = message.request_body if phase is Phase.REQUEST else message.response_body
    piece = body.response.body_mutation.streamed_response
    assert (b"\x00a piece\xff", ended) == (piece.body, piece.end_of_stream)
    assert not body.response.HasField("header_mutation")
    assert not message.HasField("dynamic_metadata")


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize(
    ("action", "kind"), [(ContinueHeaders, "headers"), (ContinueBody, "body"), (ContinueTrailers, "trailers")]
)
def test_an_untouched_part_has_an_empty_reply(phase: Phase, action: Any, kind: str) -> None:
    """The reply that lets a part pass is that part's message without content."""
    reply = "".join(part.title() if at else part for at, part in enumerate((phase.name.lower(), kind)))
    assert {reply: {}} == json_format.MessageToDict(encoded(action(phase)))


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
def test_evidence_for_the_access_log_is_sent_with_each_decision(mode: Mode) -> None:
    """Each decision's own evidence is in its metadata, padded so that its length says little; without evidence, or
    without an estimate to give evidence of, there is none, and everything else is as it would be.
    """
    said: list[str | None] = ["1;22;latin", "9;88;greek", "a text of more than one step", None]
    encoder, plain = Encoder(NAMES, lambda _: said[0]), Encoder(NAMES)
    action = ContinueHeaders(Phase.REQUEST, decision(SHORT, mode, BUDGET))
    without = json_format.MessageToDict(encoded(action, plain))
    while said:
        message = json_format.MessageToDict(encoded(action, encoder))
        evidence = message["dynamicMetadata"]["dualpool"].pop("evidence", None)
        expected = said.pop(0)
        assert expected == (evidence and evidence.rstrip())
        assert evidence is None or len(evidence) in {20, 40}
        assert without == message
    said.append("unused")
    undecided = ContinueHeaders(Phase.REQUEST, decision(LONG, mode))
    assert encoded(undecided, plain) == encoded(undecided, encoder)


def test_a_close_has_no_message() -> None:
    """Closing the stream needs no message."""
    with pytest.raises(TypeError, match="has no message"):
        Encoder(NAMES).encode(Close())


@given(
    st.lists(
        st.tuples(
            st.sampled_from([SHORT, LONG]),
            st.sampled_from([Mode.ENFORCE, Mode.SHADOW]),
            st.none() | st.integers(0, 9_999),
            st.sampled_from([ContinueHeaders, ContinueBody]),
            st.sampled_from(Source),
        ),
        max_size=9,
    )
)
def test_prepared_messages_keep_nothing_of_the_previous_request(kinds: list[tuple[Any, ...]]) -> None:
    """In any order, an encoder's messages equal those of a new encoder for each."""
    encoder = Encoder(NAMES)
    for pool, mode, bound, action, source in kinds:
        budget = None if bound is None else TokenBudget(bound // 2, bound, bound // 3, 1, bound // 2)
        estimate = None if bound is None else msgspec.structs.replace(ESTIMATE, source=source)
        decided = action(Phase.REQUEST, msgspec.structs.replace(decision(pool, mode, budget), estimate=estimate))
        assert encoded(decided) == encoded(decided, encoder)
