from typing import Any

import pytest

from extproc.emulator.admission import measure
from extproc.emulator.apis.chat import ChatApi
from extproc.emulator.apis.completions import CompletionsApi
from extproc.emulator.apis.messages import MessagesApi
from extproc.emulator.apis.responses import ResponsesApi
from extproc.emulator.refusals import Refusal
from extproc.emulator.settings import VllmVersion
from extproc.emulator.template import DEFAULT_IMAGE_TOKENS
from extproc.emulator.tokenizers import ByteRule
from extproc.emulator.writer import write_sequences

CONTEXT = 100
WORD = "word "  # one token by the rule


def prompt_tokens(**body: Any) -> int:
    """Return the tokens of a chat request's prompt."""
    return measure(ChatApi().read(body), ByteRule(), 10**9).prompt_tokens


def refusal_of(prompt: object, max_tokens: int | None, **fields: Any) -> Refusal:
    """Return the refusal of a completion by a context of 100 tokens."""
    work = CompletionsApi().read({"prompt": prompt, "max_tokens": max_tokens} | fields)
    with pytest.raises(Refusal) as refused:
        measure(work, ByteRule(), CONTEXT, VllmVersion.V0_20)
    return refused.value


def user(content: object) -> list[dict[str, object]]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": content}]


def test_exactly_full_context_is_admitted() -> None:
    """A prompt and its declared output may fill the context to the last token."""
    work = CompletionsApi().read({"prompt": [7] * 90, "max_tokens": 10})
    assert measure(work, ByteRule(), CONTEXT).room_tokens == 10


def test_a_declared_output_that_does_not_fit_is_shortened_or_refused_by_version() -> None:
    """From 0.32 on, 90 prompt tokens leave 10 of 20 for the output; earlier versions refuse the request."""
    work = CompletionsApi().read({"prompt": [7] * 90, "max_tokens": 20, "ignore_eos": True})
    admitted = measure(work, ByteRule(), CONTEXT, VllmVersion.V0_32)
    (sequence,) = write_sequences(work, admitted.room_tokens, 80, ByteRule())
    assert (10, "length") == (len(sequence.pieces), sequence.finish_reason)
    with pytest.raises(Refusal, match="you requested 20 output tokens and your prompt contains 90 input tokens"):
        measure(work, ByteRule(), CONTEXT, VllmVersion.V0_20)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompt": [7] * 102, "max_tokens": 1}, "your prompt contains 102 input tokens"),
        ({"prompt": WORD * 101, "max_tokens": 1}, "your prompt contains at least 101 input tokens"),
        ({"prompt": [7] * 100, "max_tokens": 1}, "max_tokens must be at least 1, got 0"),
        ({"prompt": [7], "max_tokens": 101}, "max_tokens=101 cannot be greater than"),
    ],
)
def test_every_version_refuses_a_prompt_or_an_output_too_long_by_itself(body: dict[str, Any], said: str) -> None:
    """A prompt or an output that exceeds the context by itself is a 400 even from 0.32 on."""
    with pytest.raises(Refusal) as refused:
        measure(CompletionsApi().read(body), ByteRule(), CONTEXT, VllmVersion.V0_32)
    assert said in refused.value.message


def test_text_over_the_limit_is_refused_as_at_least() -> None:
    """Counting of a text stops at the first token over the limit, and the refusal says "at least"."""
    refusal = refusal_of(WORD * 95, 10)
    assert refusal.message == (
        "This model's maximum context length is 100 tokens. However, you requested 10 output tokens and your "
        "prompt contains at least 91 input tokens, for a total of at least 101 tokens. Please reduce the length "
        "of the input prompt or the number of requested output tokens. (parameter=input_tokens, value=91)"
    )
    assert (refusal.status, refusal.param, refusal.kind) == (400, "input_tokens", "BadRequestError")


def test_token_ids_over_the_limit_are_refused_exactly() -> None:
    """For token ids, the refusal names the exact number."""
    assert "your prompt contains 95 input tokens, for a total of 105 tokens" in refusal_of([7] * 95, 10).message


def test_hopelessly_long_text_is_refused_by_its_characters() -> None:
    """Text longer than any tokenizer could fit is refused without being counted."""
    refusal = refusal_of("x" * 10_000, 10)
    assert "contains 10000 characters (more than 540 characters, which is the upper" in refusal.message
    assert refusal.param == "input_text"


def test_declared_output_alone_over_the_context_is_refused() -> None:
    """An output limit above the context is refused under its own name."""
    refusal = refusal_of("hi", 101)
    assert refusal.message.startswith("max_tokens=101 cannot be greater than max_model_len=100.")
    assert refusal.param == "max_tokens"


def test_full_prompt_without_declared_output_is_refused() -> None:
    """A prompt that fills the context leaves no room for the one output token that is always needed."""
    assert refusal_of([7] * 100, None).message.startswith("max_tokens must be at least 1, got 0.")


def test_truncated_prompt_counts_what_is_kept() -> None:
    """With truncate_prompt_tokens a long prompt is cut; -1: to what fits, from 0.32 on with one output token."""
    body = {"prompt": WORD * 500, "max_tokens": 10}
    kept = [
        measure(
            CompletionsApi().read(body | {"truncate_prompt_tokens": cut}), ByteRule(), CONTEXT, version
        ).prompt_tokens
        for version in VllmVersion
        for cut in (20, -1)
    ]
    assert kept == [20, 90, 20, 99]


@pytest.mark.parametrize("version", VllmVersion)
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": [7], "max_tokens": 4, "min_tokens": 5}, "less than or equal to max_tokens=4, got 5."),
        (
            {"prompt": [7] * 90, "max_tokens": None, "min_tokens": 11},
            "less than or equal to max_tokens=10, got 11.",
        ),
        ({"prompt": [7], "max_tokens": 4, "min_tokens": -1}, "greater than or equal to 0, got -1."),
        ({"prompt": [[7], []]}, "The decoder prompt cannot be empty"),
        ({"prompt": ["word", ""]}, "The decoder prompt cannot be empty"),
    ],
)
def test_what_no_output_can_meet_is_refused(fields: dict[str, Any], said: str, version: VllmVersion) -> None:
    """A least output above the limit, or above the room after the prompt, is refused; so is an empty prompt."""
    with pytest.raises(Refusal, match=said):
        measure(CompletionsApi().read(fields), ByteRule(), CONTEXT, version)


def test_several_prompts_count_together_and_fit_one_by_one() -> None:
    """Usage sums a list of prompts, but each prompt may use the whole context."""
    admitted = measure(CompletionsApi().read({"prompt": [[1] * 60, [1] * 70]}), ByteRule(), CONTEXT)
    assert (admitted.prompt_tokens, admitted.room_tokens) == (130, 30)


def test_every_message_costs_its_marks_and_role() -> None:
    """A message costs its content, its role, and the markers of a turn."""
    one, two = (prompt_tokens(messages=user("hello") * times) for times in (1, 2))
    assert two - one == ByteRule().count("user\nhello") + 3


def test_tools_cost_tokens() -> None:
    """Tool definitions are part of the prompt."""
    tool = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}
    plain, tools = prompt_tokens(messages=user("hi")), prompt_tokens(messages=user("hi"), tools=[tool])
    assert tools - plain > ByteRule().count('{"name": "lookup"}')


def test_images_cost_by_their_size_and_not_their_bytes() -> None:
    """A PNG costs a token per 28 x 28 pixels, whatever the size of its base64, which is never tokenised."""
    head = "iVBORw0KGgoAAAANSUhEUgAAAHAAAABU"  # a PNG's first bytes: 112 x 84 pixels
    urls = (f"data:image/png;base64,{head}{'A' * extra}" for extra in (0, 100_000))
    costs = {prompt_tokens(messages=user([{"type": "image_url", "image_url": {"url": url}}])) for url in urls}
    assert costs == {prompt_tokens(messages=user("")) + 4 * 3 + 2}


@pytest.mark.parametrize(
    "url", ["http://x/\ud800", "data:image/png;base64,\u00e9", "data:image/png;base64,AA", ""]
)
def test_an_image_that_is_none_is_counted_as_one(url: str) -> None:
    """Whatever text stands for an image, it costs what an image of unknown size does, and seeds a response."""
    work = ChatApi().read({"messages": user([{"type": "image_url", "image_url": {"url": url}}])})
    assert measure(work, ByteRule(), 10**6).prompt_tokens > DEFAULT_IMAGE_TOKENS
    assert work.prompts[0].digest()


def test_all_apis_agree_on_a_conversation() -> None:
    """The same conversation costs the same by chat, responses and messages."""
    chat = {"messages": [{"role": "system", "content": "Be brief."}, *user("What is it?")]}
    responses = {"instructions": "Be brief.", "input": "What is it?"}
    messages = {"model": "m", "max_tokens": 1, "system": "Be brief.", "messages": user("What is it?")}
    works = (ChatApi().read(chat), ResponsesApi().read(responses), MessagesApi().read(messages))
    assert len({measure(work, ByteRule(), 1000).prompt_tokens for work in works}) == 1


@pytest.mark.parametrize(
    "field",
    [
        {"max_tokens": "many"},
        {"max_tokens": 16.5},
        {"max_tokens": float("nan")},
        {"max_tokens": -1},
        {"max_tokens": 0},
        {"n": 0},
        {"messages": "hi"},
        {"messages": user({"text": "hi"})},
        {"messages": user([{"type": "hologram"}])},
        {"stream": "perhaps"},
    ],
    ids=str,
)
def test_wrong_types_and_values_are_refused(field: dict[str, object]) -> None:
    """A value that does not have the API's type or range is a 400."""
    with pytest.raises(Refusal) as refused:
        ChatApi().read({"messages": user("hi")} | field)
    assert refused.value.status == 400


@pytest.mark.parametrize("limit", [16, "16", 16.0])
def test_numbers_are_read_laxly(limit: object) -> None:
    """An integer may be given as a string or a float."""
    assert ChatApi().read({"messages": user("hi"), "max_tokens": limit}).max_tokens == 16


def test_max_completion_tokens_overrides_max_tokens() -> None:
    """If both names of the output limit are given, the newer one counts."""
    work = ChatApi().read({"messages": user("hi"), "max_tokens": 5, "max_completion_tokens": 7})
    assert work.max_tokens == 7
