"""Memory of prefixes: a conversation's reported usage is the cost of the beginning of its next turn."""

import json
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.core.apis import read_request
from extproc.core.estimator.byteclass import ByteClassEstimator
from extproc.core.estimator.evidence import Evidence
from extproc.core.estimator.features import FEATURE_NAMES
from extproc.core.estimator.prefixes import Known, PrefixMemory, Recalled
from extproc.core.estimator.protocol import Estimate
from extproc.core.estimator.settings import ByteClassSettings, EstimatorSettings
from extproc.core.facts import Api, MediaCount, RequestFacts
from extproc.core.usage import Overflow, Usage
from tests.unit.byteclass_lessons import WORDS, teach

TEXT = (WORDS * 30).decode()
TALK = (("system", TEXT[:900]), ("user", TEXT[:700]), ("assistant", TEXT[5:600]), ("user", TEXT[9:90]))
OFF = EstimatorSettings(byteclass=ByteClassSettings(max_prefixes=0))


def chat(turns: Sequence[tuple[str, str]], model: str = "m", **fields: object) -> RequestFacts:
    """Return the facts of a chat with these turns."""
    messages = [{"role": role, "content": content} for role, content in turns]
    return read_request(Api.CHAT, json.dumps({"model": model, "messages": messages, **fields}).encode())


def observed(estimator: ByteClassEstimator, facts: RequestFacts, tokens: int, tenant: str = "") -> Estimate:
    """Let an estimator observe the usage of a chat; return its estimate of the same chat afterwards."""
    estimator.observe(estimator.estimate(facts, tenant), Usage(tokens))
    return estimator.estimate(facts, tenant)


def is_known(estimate: Estimate) -> bool:
    """Return whether an estimate covers only what follows a known beginning."""
    evidence = estimate.evidence
    assert isinstance(evidence, Evidence)
    return evidence.recalled is not None and evidence.recalled.known is not None


def taught(settings: EstimatorSettings | None = None) -> ByteClassEstimator:
    """Return an estimator that has learned that prose costs a token per four bytes."""
    estimator = ByteClassEstimator(settings or EstimatorSettings())
    teach(estimator, 150)
    return estimator


def test_a_turn_costs_what_was_known_and_what_is_new() -> None:
    """If a chat cost more than its text suggests, the next turn costs that much plus the price of the new part."""
    estimator, plain = taught(), taught(OFF)
    first, second = chat(TALK[:2]), chat(TALK)
    known = round(1.08 * plain.estimate(first, "").prompt_tokens)
    observed(estimator, first, known)
    new_bytes = second.text_bytes - first.text_bytes
    estimate = estimator.estimate(second, "")
    assert new_bytes / 4 == pytest.approx(estimate.prompt_tokens - known, rel=0.3)
    assert estimate.prompt_bound > estimate.prompt_tokens


def test_a_known_beginning_narrows_the_bound() -> None:
    """After some conversations have continued, the next one has a tighter bound than without the memory."""
    estimator, plain = taught(), taught(OFF)
    second = chat(TALK)
    for each in (estimator, plain):
        for start in range(60):
            turns = (*TALK[:3], ("user", TEXT[start : 500 + 5 * start]))
            observed(each, chat(turns[:2]), chat(turns[:2]).text_bytes // 4)
            observed(each, chat(turns), chat(turns).text_bytes // 4)
    widths = [
        estimate.prompt_bound / estimate.prompt_tokens - 1
        for estimate in (estimator.estimate(second, ""), plain.estimate(second, ""))
    ]
    assert widths[0] < 0.8 * widths[1]


@pytest.mark.parametrize(
    "other",
    [
        chat((("system", TEXT[:900]), ("assistant", TEXT[:700]), *TALK[2:])),
        chat((("system", TEXT[:899]), ("user", TEXT[:700]), *TALK[2:])),
        chat((("system", TEXT[:901]), ("user", TEXT[1:700]), *TALK[2:])),
        chat(TALK, tools=[{"type": "function", "function": {"name": "f"}}]),
        replace(chat(TALK), media=MediaCount(small_images=1)),
        replace(chat(TALK), unseen_history=True),
        replace(chat(TALK), turns=()),
    ],
    ids=["role", "text", "cut elsewhere", "tools", "media", "unseen", "no conversation"],
)
def test_another_beginning_is_not_known(other: RequestFacts) -> None:
    """With another role, text, message boundary, tool or image, the prompt is
    estimated from scratch, as without memory.
    """
    estimator, plain = taught(), taught(OFF)
    first = chat(TALK[:2])
    known = round(1.08 * plain.estimate(first, "").prompt_tokens)
    for each in (estimator, plain):
        observed(each, first, known)
    assert plain.estimate(other, "").prompt_tokens == estimator.estimate(other, "").prompt_tokens


def test_tenants_do_not_share_what_is_known() -> None:
    """The cost of a tenant's chat is not found by another tenant's chat, nor for another model."""
    estimator, first, second = taught(), chat(TALK[:2]), chat(TALK)
    observed(estimator, first, round(estimator.estimate(first, "a").prompt_tokens), tenant="a")
    assert [True, False, False] == [
        is_known(estimator.estimate(facts, tenant))
        for facts, tenant in ((second, "a"), (second, "b"), (chat(TALK, model="n"), "a"))
    ]


def test_a_count_that_turns_out_wrong_is_forgotten() -> None:
    """If a prompt costs no more than its beginning supposedly did, that beginning is no longer used."""
    estimator, first, second = taught(), chat(TALK[:2]), chat(TALK)
    observed(estimator, first, round(estimator.estimate(first, "").prompt_tokens))
    assert is_known(estimator.estimate(second, ""))
    estimator.observe(estimator.estimate(second, ""), Usage(first.text_bytes // 4 - 100))
    assert not is_known(estimator.estimate(second, ""))


def test_a_conversation_that_is_used_again_is_remembered_longer() -> None:
    """The conversation that has gone unused longest is evicted."""
    estimator = taught(EstimatorSettings(byteclass=ByteClassSettings(max_prefixes=2)))
    chats = [(("user", TEXT[i : 900 + i]),) for i in range(3)]
    for position in (0, 1, 0, 2):
        observed(estimator, chat(chats[position]), 225)
    estimates = [estimator.estimate(chat((*turns, *TALK[2:])), "") for turns in chats]
    assert [True, False, True] == list(map(is_known, estimates))


@pytest.mark.parametrize(("times", "known"), [(3.8, True), (4.2, False), (1 / 3.8, True), (1 / 4.2, False)])
def test_a_beginning_whose_continuation_does_not_fit_is_forgotten(times: float, *, known: bool) -> None:
    """The cost of the new part may be off by a factor of four; beyond
    that, the earlier count is considered wrong.
    """
    estimator, first, second = taught(), chat(TALK[:2]), chat((*TALK[:3], ("user", TEXT[:900])))
    before = round(estimator.estimate(first, "").prompt_tokens)
    estimator.observe(estimator.estimate(first, ""), Usage(before))
    new = estimator.estimate(second, "").prompt_tokens - before
    estimator.observe(estimator.estimate(second, ""), Usage(before + round(times * new)))
    another = chat((*TALK[:2], ("assistant", TEXT[7:300])))
    assert known == is_known(estimator.estimate(another, ""))


def test_counts_from_before_a_new_tokenizer_are_forgotten() -> None:
    """If the tokenizer behind a name changes, prices start from scratch and all known counts are void."""
    estimator, first, second = taught(), chat(TALK[:2]), chat(TALK)
    observed(estimator, first, round(estimator.estimate(first, "").prompt_tokens))
    assert is_known(estimator.estimate(second, ""))
    teach(estimator, 40, ratio=1.5)
    (model,) = estimator.state().models
    assert 1 == model.generation
    assert not is_known(estimator.estimate(second, ""))


def test_the_table_is_bounded() -> None:
    """When the table is full, the least recently used conversation is forgotten."""
    estimator = taught(EstimatorSettings(byteclass=ByteClassSettings(max_prefixes=2)))
    chats = [(("user", TEXT[i : 900 + i]),) for i in range(3)]
    for turns in chats:
        observed(estimator, chat(turns), 225)
    estimates = [estimator.estimate(chat((*turns, *TALK[2:])), "") for turns in chats]
    assert [False, True, True] == list(map(is_known, estimates))


def test_reasoning_that_is_dropped_later_is_another_beginning() -> None:
    """A prompt that contains the reasoning of its last answer is not how the next question's prompt begins."""
    estimator = taught()
    messages = [
        {"role": "user", "content": TEXT[:500]},
        {"role": "assistant", "content": "Let me look.", "reasoning": TEXT[:2_000]},
        {"role": "tool", "content": TEXT[:300]},
    ]
    later = [*messages, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "And now?"}]
    first, second = (
        read_request(Api.CHAT, json.dumps({"model": "m", "messages": each}).encode()) for each in (messages, later)
    )
    observed(estimator, first, round(estimator.estimate(first, "").prompt_tokens))
    assert not is_known(estimator.estimate(second, ""))


@pytest.mark.parametrize("kept_bytes", [0, 1_500])
def test_earlier_reasoning_that_is_no_longer_sent_takes_nothing_off(kept_bytes: int) -> None:
    """A turn with less of the earlier reasoning than its beginning had costs as much as one with all of it."""

    def asked(reasoning: str, *later: str) -> RequestFacts:
        messages = [
            {"role": "user", "content": TEXT[:900]},
            {"role": "assistant", "content": "Let me look.", "reasoning": reasoning},
            *({"role": "user", "content": content} for content in ("Go on.", *later)),
        ]
        return read_request(Api.CHAT, json.dumps({"model": "m", "messages": messages}).encode())

    estimator = ByteClassEstimator(EstimatorSettings())
    first = asked(TEXT[:3_000])
    observed(estimator, first, round(estimator.estimate(first, "").prompt_tokens))
    less, equal = (estimator.estimate(asked(TEXT[:size], TEXT[:80]), "") for size in (kept_bytes, 3_000))
    assert is_known(less)
    assert equal.prompt_tokens == pytest.approx(less.prompt_tokens)
    assert equal.prompt_bound == pytest.approx(less.prompt_bound)


def test_a_refused_turn_says_nothing_about_the_bound_of_whole_prompts() -> None:
    """A turn that was routed on the bound of its new part moves that of whole prompts by a refusal as little as by
    its usage.
    """
    estimator = taught()
    first = chat(TALK[:2])
    observed(estimator, first, round(estimator.estimate(first, "").prompt_tokens))
    before = estimator.state().models[0]
    turn = estimator.estimate(chat(TALK), "")
    assert is_known(turn)
    estimator.observe_overflow(turn, Overflow(round(3 * turn.prompt_tokens)))
    after = estimator.state().models[0]
    assert before.observations + 1 == after.observations
    assert (before.q, before.scored, before.scale_b) == (after.q, after.scored, after.scale_b)


def test_what_was_recalled_does_not_change_before_the_response() -> None:
    """The features of a known beginning stay the same if the table forgets it for another conversation."""
    memory, turns = PrefixMemory(1), [("user", "hello"), ("user", "there")]
    memory.learn(_recalled(memory, turns[:1]), 10, np.full(len(FEATURE_NAMES), 2.0))
    recalled = _recalled(memory, turns)
    memory.learn(recalled, 20, np.full(len(FEATURE_NAMES), 3.0))
    assert recalled.known is not None
    assert {2.0} == set(recalled.known.x)


def test_a_router_without_a_memory_ignores_the_conversations_of_others() -> None:
    """A log entry may be of a router that remembers conversations."""
    memory = PrefixMemory(0)
    memory.learn(_recalled(PrefixMemory(1), [("user", "hello")]), 10, np.zeros(len(FEATURE_NAMES)))
    assert not len(memory)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_each_conversation_has_its_own_features(steps: list[tuple[bool, int]], most: int) -> None:
    """Whatever else is learned, evicted or forgotten, a conversation has the features it was learned with."""
    memory, expected = PrefixMemory(most), OrderedDict[int, int]()
    for number, (is_learned, which) in enumerate(steps):
        whole = _recalled(memory, [("user", str(which))])
        memory.forget(whole.key)
        expected.pop(which, None)
        if is_learned:
            memory.learn(whole, number, np.full(len(FEATURE_NAMES), number))
            expected[which] = number
        if len(expected) > most:
            expected.popitem(last=False)
    for which in range(6):
        known = _recalled(memory, [("user", str(which)), ("user", "next")]).known
        assert (known.tokens if known is not None else None) == expected.get(which)
        assert known is None or {known.tokens} == set(known.x)


def _recalled(memory: PrefixMemory, turns: Sequence[tuple[str, str]]) -> Recalled:
    """Return what a memory knows of a conversation."""
    recalled = memory.recall(chat(turns), "", 0)
    assert recalled is not None
    return recalled


ROLES = st.sampled_from(["user", "assistant", ""])


@given(st.lists(st.tuples(ROLES, st.text(max_size=30)), min_size=1, max_size=6))
def test_turns_end_where_their_texts_do(turns: list[tuple[str, str]]) -> None:
    """For any content, a turn's end in bytes is the length of all texts up to it."""
    facts = chat(turns)
    texts = ["".join(content for _, content in turns[: place + 1]).encode() for place in range(len(turns))]
    assert [(role, len(text)) for (role, _), text in zip(turns, texts, strict=True)] == list(facts.turns)


def test_a_table_of_one_conversation_remembers_it() -> None:
    """This is the smallest possible memory."""
    estimator, first = taught(EstimatorSettings(byteclass=ByteClassSettings(max_prefixes=1))), chat(TALK[:2])
    observed(estimator, first, round(estimator.estimate(first, "").prompt_tokens))
    assert is_known(estimator.estimate(chat(TALK), ""))


@pytest.mark.parametrize(("size", "remembered"), [(256 << 10, True), ((256 << 10) + 1, False)])
def test_a_very_long_conversation_is_not_remembered(size: int, remembered: bool) -> None:  # noqa: FBT001
    """What is hashed of a request is bounded."""
    recalled = PrefixMemory(1).recall(chat([("user", "a" * size)]), "", 0)
    assert remembered is (recalled is not None)


def test_a_beginning_that_is_continued_is_remembered_longer() -> None:
    """Other branches of a conversation may follow, so its known beginning counts as used."""
    estimator = taught(EstimatorSettings(byteclass=ByteClassSettings(max_prefixes=3)))
    other, another = (("user", TEXT[5:905]),), (("user", TEXT[7:907]),)
    for turns in (TALK[:2], other, TALK, another):
        request = chat(turns)
        observed(estimator, request, round(estimator.estimate(request, "").prompt_tokens))
    branch = chat((*TALK[:2], ("assistant", TEXT[7:300])))
    assert is_known(estimator.estimate(branch, ""))
    assert not is_known(estimator.estimate(chat((*other, *TALK[2:])), ""))


def test_a_count_that_is_believed_only_in_part_is_not_remembered() -> None:
    """A response whose usage is clipped may be wrong, and would be the beginning of every later turn."""
    estimator, first = taught(), chat(TALK[:2])
    estimate = estimator.estimate(first, "")
    assert estimator.observe(estimate, Usage(round(1.9 * estimate.prompt_tokens))).clipped
    assert not is_known(estimator.estimate(chat(TALK), ""))


def test_a_count_that_was_replaced_meanwhile_teaches_nothing() -> None:
    """What comes back through the access log has no features: if its count is no longer the one that is known,
    nothing is learned from the conversation.
    """
    memory, turns, x = PrefixMemory(2), [("user", "hello"), ("user", "there")], np.ones(len(FEATURE_NAMES))
    memory.learn(_recalled(memory, turns[:1]), 10, x)
    known = _recalled(memory, turns)
    assert known.known is not None
    short = Known(10, known.known.messages, known.known.messages_bytes, np.zeros(0, np.float32))
    logged = Recalled(known.key, known.messages, known.messages_bytes, short, known.known_key)
    at_hand = memory.at_hand(logged)
    assert at_hand is not None
    assert at_hand.known is not None
    assert {1.0} == set(at_hand.known.x)
    memory.learn(_recalled(memory, turns[:1]), 11, x)
    assert memory.at_hand(logged) is None
