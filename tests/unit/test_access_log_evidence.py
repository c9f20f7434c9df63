"""The evidence of a decision that goes through the gateway's access log, and when the router trusts it."""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.access_log import payload, recalled
from extproc.access_log.counts import FINE_BYTES, SIZE, counts_from, packed_counts
from extproc.access_log.payload import Payloads
from extproc.access_log.seal import MAX_SEALED_BYTES, Keys, Seal, Unsealed, Untrusted
from extproc.core.apis import read_request
from extproc.core.apis.bodies import MAX_NUMBER
from extproc.core.estimator import make_estimator
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.prefixes import Known, Recalled
from extproc.core.estimator.protocol import CategoryKey, Estimate, Estimator, Refused, Source
from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.estimator.sources import MOST_NUMBER
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.budget import TokenBudget, token_budget
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.policy import Pool, Reason
from extproc.core.placing.stratum import stratum_of
from extproc.core.usage import Usage
from tests.unit.conftest import TWO_POOLS
from tests.unit.test_learner import make_router

KEY, MAX_AGE_S, NOW_S = b"k" * 32, 3_600.0, 1_800_000_000.0
HEAD = RequestHead("POST", "/v1/chat/completions")
SCRIPTS = "".join(map(chr, range(0x20, 0x700, 3)))


def make_seal(key: bytes = KEY, pools: Sequence[Pool] = TWO_POOLS, kind: str = "byteclass") -> Seal:
    """Return the seal of a router with these pools and this kind of estimator."""
    return Seal(Keys(key), Payloads(pools, kind), MAX_AGE_S)


def decided(content: str = "How are you?", model: str = "m", **fields: object) -> Decision:
    """Return the decision on a chat request."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
    return make_router().decide(Api.CHAT, HEAD, json.dumps(body).encode())


def sealed(decision: Decision, now_s: float = NOW_S) -> str:
    """Return the evidence of a decision that has some."""
    evidence = make_seal().seal(decision, now_s)
    assert evidence is not None
    return evidence


def refusal(evidence: str, seal: Seal | None = None, now_s: float = NOW_S) -> Untrusted:
    """Return why the evidence is not trusted."""
    with pytest.raises(Unsealed) as raised:
        (seal or make_seal()).open(evidence, now_s)
    return raised.value.why


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.COMPLETIONS, {"prompt": ["a"] * 2_048, "n": MAX_NUMBER, "max_tokens": MAX_NUMBER}),
        (
            Api.GENERATE,
            {"text": ["a"] * 2_048, "sampling_params": {"n": MAX_NUMBER, "max_new_tokens": MAX_NUMBER}},
        ),
    ],
)
def test_the_largest_numbers_that_are_read_can_be_sealed(api: Api, body: dict[str, object]) -> None:
    """Outputs of each of many prompts are a product, which the evidence has to hold."""
    decision = make_router().decide(api, HEAD, json.dumps(body).encode())
    assert decision.budget == make_seal().open(sealed(decision), NOW_S).budget


def test_a_decision_survives_sealing_and_opening() -> None:
    """The evidence contains all that learning needs: each field of Evidence, Estimate and budget survives."""
    x = np.zeros(SIZE)
    x[3] = 7.0
    evidence = Evidence(Refused.TRUNCATED, 20.5, 77, 300, 3, False, x, 5, None, True, 6, 0, True, 9.5, True)  # noqa: FBT003
    estimate = Estimate(20.5, 31.25, 44, True, Source.YOUNG, CategoryKey("m", "tenant"), evidence)  # noqa: FBT003
    decision = Decision(
        TWO_POOLS[0],
        Reason.SPILLED,
        Mode.SHADOW,
        routed=True,
        api=Api.MESSAGES,
        model="m",
        estimate=estimate,
        budget=TokenBudget(21, 32, 44, 3, 63),
        stream=True,
        learnable=True,
        counted=Counted((9, 8, 7, 1, 2, 1, 2, 3)),
        stratum=stratum_of(300, 20.5, stream=True),
    )
    opened = make_seal().open(sealed(decision), NOW_S)
    assert decision == opened
    assert opened.estimate is not None
    assert isinstance(opened.estimate.evidence, Evidence)
    assert 6 == opened.estimate.evidence.source
    assert opened.estimate.evidence.x is not None
    assert x.tolist() == pytest.approx(opened.estimate.evidence.x.tolist(), rel=1e-3)


def test_all_fields_of_evidence_are_packed() -> None:
    """All that an estimator keeps of a request is packed: a new field has to be packed, too."""
    packed = {"refused", "tokens", "text_bytes", "output_limit", "sequences", "one_prompt", "x", "media_tokens"}
    packed |= {"recalled", "of_tenant", "source", "number", "output_forced", "other_tokens", "cut_to_fit"}
    assert packed == set(Evidence.__struct_fields__)


@given(st.text(max_size=3_000), st.text(max_size=40), st.booleans())
def test_evidence_is_small_and_nearly_exact(text: str, model: str, stream: bool) -> None:  # noqa: FBT001
    """Whatever the prompt, its evidence is at most 300 bytes, and its counts and tokens are nearly the same."""
    decision = decided(text, model or "m", stream=stream)
    evidence = sealed(decision)
    assert len(evidence) <= MAX_SEALED_BYTES
    before, after = decision.estimate, make_seal().open(evidence, NOW_S).estimate
    assert before is not None
    assert after is not None
    assert before.category == after.category
    assert before.prompt_bound == pytest.approx(after.prompt_bound, abs=0.04)
    assert isinstance(before.evidence, Evidence)
    assert isinstance(after.evidence, Evidence)
    assert before.evidence.x is not None
    assert after.evidence.x is not None
    assert before.evidence.x.tolist() == pytest.approx(after.evidence.x.tolist(), rel=0.08, abs=1e-3)


@given(st.lists(st.floats(0, 1e7), min_size=SIZE, max_size=SIZE), st.integers(0, 300), st.sampled_from([1, 2]))
def test_packed_counts_fit_their_room(counts: list[float], room: int, count_bytes: int) -> None:
    """Packed counts fit the room and come back within one step of the logarithm; without room, none are packed."""
    data = packed_counts(np.array(counts), room, count_bytes)
    if data is not None:
        assert len(data) <= room
        error = {1: 0.04, FINE_BYTES: 2e-4}[count_bytes]
        assert [1 + each for each in counts] == pytest.approx([1 + each for each in counts_from(data)], rel=error)


def turn(estimator: Estimator, turns: int) -> tuple[Estimate, int]:
    """Decide one turn of a conversation, and learn from its log entry; return the estimate and the tokens."""
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": f"Say {number}, and go on. "}
        for number in range(2 * turns - 1)
    ]
    facts = read_request(Api.CHAT, json.dumps({"model": "m", "messages": messages}).encode())
    estimate = estimator.estimate(facts, "")
    decision = Decision(
        TWO_POOLS[0],
        Reason.FITS,
        Mode.ENFORCE,
        routed=True,
        api=Api.CHAT,
        model="m",
        estimate=estimate,
        budget=token_budget(facts, estimate),
    )
    opened = make_seal().open(sealed(decision), NOW_S).estimate
    assert opened is not None
    tokens = round(estimate.prompt_tokens) + 1
    estimator.observe(opened, Usage(tokens, 5))
    return estimate, tokens


def test_conversations_are_remembered_by_their_keys() -> None:
    """What one turn's log entry teaches is where the next turn starts from, as if a response had taught it."""
    estimator, before = make_estimator(EstimatorSettings()), None
    for turns in range(1, 6):
        estimate, tokens = turn(estimator, turns)
        assert isinstance(estimate.evidence, Evidence)
        assert estimate.evidence.recalled is not None
        known = estimate.evidence.recalled.known
        assert before == (known and known.tokens)
        before = tokens


def test_conversations_known_elsewhere_are_not_remembered() -> None:
    """A router that does not know a conversation's beginning learns prices from it but remembers no prefix."""
    ours, theirs = (ByteClassEstimator(EstimatorSettings()) for _ in range(2))
    turn(theirs, 1)
    estimate, tokens = turn(theirs, 2)
    assert 2 == len(theirs._prefixes)
    assert isinstance(estimate.evidence, Evidence)
    away = replace(estimate.evidence, recalled=Recalled(0, 0, 0, Known(0, 0, 0, np.empty(0, np.float32))))
    learning = ours.observe(replace(estimate, evidence=away), Usage(tokens, 5))
    (model,) = ours.state().models
    assert (None, 1, 0) == (learning.refused, model.observations, len(ours._prefixes))


def evidence_in(sealed_decision: str) -> Evidence:
    """Return the evidence that an entry carries."""
    estimate = make_seal().open(sealed_decision, NOW_S).estimate
    assert estimate is not None
    assert isinstance(estimate.evidence, Evidence)
    return estimate.evidence


def test_conversations_of_another_process_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of conversations differ from process to process: another one's entry teaches prices, but no prefix."""
    evidence = sealed(decided())
    assert evidence_in(evidence).recalled is not None
    monkeypatch.setattr(recalled, "_ORIGIN", recalled._ORIGIN ^ 1)
    assert evidence_in(evidence).recalled is None


def test_coarse_counts_come_without_the_conversation() -> None:
    """The longer the names, the less the evidence holds: first the conversation goes, only then exact counts.

    The beginning of a conversation cannot be subtracted from coarse counts.
    """
    kept = set()
    for name_bytes in range(0, 160, 4):
        decision = decided(SCRIPTS, "m" * name_bytes)
        evidence = make_seal().seal(decision, NOW_S)
        if evidence is not None:
            assert decision.estimate is not None
            assert isinstance(decision.estimate.evidence, Evidence)
            opened = evidence_in(evidence)
            assert decision.estimate.evidence.x is not None
            assert opened.x is not None
            exact = bool(np.allclose(opened.x, decision.estimate.evidence.x, rtol=1e-3))
            kept.add((exact, opened.recalled is not None))
    assert {(True, True), (True, False), (False, False)} == kept


@pytest.mark.parametrize("name", ["Api", "Source", "Reason", "Refused", "Mode"])
def test_evidence_of_other_reasons_is_of_another_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of closed sets are sent as their numbers, so a release that adds one rejects what others sealed."""
    evidence = sealed(decided())
    more = [(*each, "one more") if each.__name__ == name else each for each in payload._CLOSED_SETS]
    assert len(more) == len(payload._CLOSED_SETS)
    monkeypatch.setattr(payload, "_CLOSED_SETS", more)
    assert Untrusted.OTHER_VERSION is refusal(evidence, make_seal())


@pytest.mark.parametrize(("text", "name_bytes"), [("How are you?", 120), (SCRIPTS, 50)])
def test_names_of_usual_lengths_leave_room_for_evidence(text: str, name_bytes: int) -> None:
    """Also if the numbers of the source and of the estimate are the largest ones."""
    decision = decided(text, "m" * name_bytes)
    assert decision.estimate is not None
    assert isinstance(decision.estimate.evidence, Evidence)
    evidence = replace(decision.estimate.evidence, source=MOST_NUMBER, number=MOST_NUMBER)
    opened = evidence_in(sealed(replace(decision, estimate=replace(decision.estimate, evidence=evidence))))
    assert (MOST_NUMBER, MOST_NUMBER) == (opened.source, opened.number)


def test_names_without_room_leave_no_evidence() -> None:
    """A request whose names are too long for its evidence is decided as usual, but teaches nothing."""
    assert make_seal().seal(decided(model="m" * 250), NOW_S) is None


@given(st.data())
def test_forged_evidence_is_rejected(data: st.DataObject) -> None:
    """Evidence with any one character changed is rejected, without an internal error."""
    evidence = sealed(decided())
    at = data.draw(st.integers(0, len(evidence.rstrip("=")) - 2))
    other = data.draw(st.sampled_from("ABCxyz019+/=?é").filter(lambda character: character != evidence[at]))
    assert refusal(evidence[:at] + other + evidence[at + 1 :]) in {Untrusted.FORGED, Untrusted.OTHER_VERSION}


@given(st.text(max_size=400))
def test_other_text_is_rejected(text: str) -> None:
    """Text that is not evidence is rejected."""
    assert refusal(text) in {Untrusted.FORGED, Untrusted.OTHER_VERSION}


@pytest.mark.parametrize("key", [KEY, b"k" * 1_000])
def test_evidence_sealed_with_another_key_is_forged(key: bytes) -> None:
    """Evidence sealed with a different key counts as forged; every byte of a key counts, however long it is."""
    evidence = make_seal(key).seal(decided(), NOW_S)
    assert evidence is not None
    assert make_seal(key).open(evidence, NOW_S).routed
    assert Untrusted.FORGED is refusal(evidence, make_seal(key[:-1] + b"x"))


def test_the_former_key_opens_until_its_entries_have_expired() -> None:
    """After a change of the key, evidence of the former one is accepted for a limited time, and no longer made."""
    before, keys = sealed(decided()), Keys(KEY).followed_by(b"n" * 32, NOW_S + 100)
    seal = Seal(keys, Payloads(TWO_POOLS, "byteclass"), MAX_AGE_S)
    assert "m" == seal.open(before, NOW_S + 100).model
    assert Untrusted.FORGED is refusal(before, seal, NOW_S + 101)
    after = seal.seal(decided(), NOW_S)
    assert after is not None
    assert "m" == make_seal(b"n" * 32).open(after, NOW_S).model
    assert Untrusted.FORGED is refusal(after)


def test_without_a_former_key_only_one_key_opens() -> None:
    """The same key again is no change; without a change no other one is accepted, not even an empty one."""
    assert Keys(KEY) == Keys(KEY).followed_by(KEY, NOW_S)
    empty = make_seal(b"").seal(decided(), NOW_S)
    assert empty is not None
    assert Untrusted.FORGED is refusal(empty)


def test_the_code_has_96_bits_and_covers_the_version() -> None:
    """Each bit of the code counts, and evidence for other pools is not accepted under their version."""
    data = b64decode(sealed(decided()))
    version, code, payload = data[:4], data[4:16], data[16:]
    assert make_seal().open(b64encode(version + code + payload).decode(), NOW_S).routed
    for place in range(12):
        wrong = code[:place] + bytes([code[place] ^ 1]) + code[place + 1 :]
        assert Untrusted.FORGED is refusal(b64encode(version + wrong + payload).decode())
    others = (Pool("s", 1), Pool("l", 2))
    other_version = Payloads(others, "byteclass").version
    assert Untrusted.FORGED is refusal(b64encode(other_version + code + payload).decode(), make_seal(pools=others))


def test_evidence_of_other_pools_is_of_another_version() -> None:
    """A router with other pools rejects evidence, because its pool numbers mean something else."""
    assert Untrusted.OTHER_VERSION is refusal(sealed(decided()), make_seal(pools=(Pool("s", 1), Pool("l", 2))))


def test_evidence_of_another_kind_of_estimator_is_of_another_version() -> None:
    """A router with another `estimator.kind` rejects evidence, which may lack what it learns from."""
    assert Untrusted.OTHER_VERSION is refusal(sealed(decided()), make_seal(kind="ema"))


@pytest.mark.parametrize(
    ("age_s", "why"),
    [(MAX_AGE_S, None), (MAX_AGE_S + 1, Untrusted.EXPIRED), (-60, None), (-61, Untrusted.EXPIRED)],
)
def test_old_evidence_teaches_nothing(age_s: float, why: Untrusted | None) -> None:
    """Evidence is accepted up to its maximum age, and clocks may differ by one minute."""
    evidence = sealed(decided())
    if why is None:
        assert "m" == make_seal().open(evidence, NOW_S + age_s).model
    else:
        assert why is refusal(evidence, now_s=NOW_S + age_s)
