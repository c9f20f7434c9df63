"""Requests whose prompt or output depends on more than the usual fields: they need the largest pool."""

import json
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.errors import BodyNotUnderstood
from extproc.core.facts import Api, RequestFacts

HI: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
PROMPT, INPUT = {"prompt": "Hi"}, {"input": "Hi"}
DOCUMENTS = {"chat_template_kwargs": {"documents": [{"text": "word"}]}}
TEMPLATE = {"chat_template_kwargs": {"chat_template": "{{ x }}"}}
PLAIN_TEMPLATE = {"chat_template_kwargs": {"chat_template": "x"}}
NESTED: dict[str, Any] = {"chat_template_kwargs": {"tool": {}}}
LONG_SWITCH = {"chat_template_kwargs": {"identity": "word " * 100}}
SWITCHES = {"chat_template_kwargs": {"enable_thinking": False, "reasoning_effort": "high"}}


def is_unseen(api: Api, body: dict[str, Any]) -> bool:
    """Return whether a body does not show the whole prompt or output."""
    return read_request(api, json.dumps(body).encode()).unseen_history


def is_forced(api: Api, body: dict[str, Any]) -> bool:
    """Return whether the client keeps the model from ending its output."""
    return read_request(api, json.dumps(body).encode()).output_forced


@pytest.mark.parametrize(
    ("api", "body"), [(Api.CHAT, HI), (Api.MESSAGES, HI), (Api.RESPONSES, INPUT), (Api.EMBEDDINGS, HI)]
)
def test_values_for_a_chat_template_may_be_part_of_the_prompt(api: Api, body: dict[str, Any]) -> None:
    """Switches are not; documents, other templates, and long texts may be."""
    assert not is_unseen(api, body | SWITCHES)
    for values in (DOCUMENTS, TEMPLATE, PLAIN_TEMPLATE, NESTED, LONG_SWITCH):
        assert is_unseen(api, body | values), values


THOUGHT = {"type": "thinking", "thinking": "Two"}
ASKED_TWICE: dict[Api, list[dict[str, Any]]] = {
    Api.CHAT: [{"role": "assistant", "reasoning": "Two", "content": "4"}],
    Api.MESSAGES: [{"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "4"}]}],
    Api.RESPONSES: [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Two"}]},
        {"role": "assistant", "content": "4"},
    ],
}


@pytest.mark.parametrize("api", ASKED_TWICE)
@pytest.mark.parametrize(
    ("switches", "kept"),
    [
        ({"preserve_thinking": True}, True),
        ({"enable_thinking": True, "clear_thinking": False}, True),
        ({"truncate_history_thinking": False}, True),
        ({"keep_past_thinking": 1}, True),
        ({"preserve_reasoning": "true"}, True),
        ({"preserve_thinking": False}, False),
        ({"clear_thinking": True}, False),
        ({"enable_thinking": False, "keep_blank_lines": True, "reasoning_effort": "high"}, False),
        ({}, False),
        (None, False),
        (["preserve_thinking"], False),
        ("preserve_thinking", False),
    ],
)
def test_reasoning_of_earlier_turns_is_text_if_the_client_has_it_kept(
    api: Api, switches: object, *, kept: bool
) -> None:
    """A switch for the template decides; without one the reasoning is separate, since most templates drop it."""
    turns = [{"role": "user", "content": "2 + 2?"}, *ASKED_TWICE[api], {"role": "user", "content": "Why?"}]
    field = "input" if api is Api.RESPONSES else "messages"
    facts = read_request(api, json.dumps({field: turns, "chat_template_kwargs": switches}).encode())
    assert (b"Two" in facts.text, facts.dropped_text) == ((True, b"") if kept else (False, b"Two"))


@pytest.mark.parametrize("api", [Api.CHAT, Api.MESSAGES, Api.RESPONSES])
@pytest.mark.parametrize(
    ("answer", "said", "dropped"),
    [
        ("<think>Two</think>Four", "Four", "<think>Two</think>"),
        ("Two</think>Four", "Four", "Two</think>"),
        ("\n<think>\nTwo\n</think>\n\nFour", "\n\nFour", "\n<think>\nTwo\n</think>"),
        ("a</think>b</think>Four", "Four", "a</think>b</think>"),
        ("Two</think>", "", "Two</think>"),
        ([{"type": "text", "text": "Two</think>Four"}], "Four", "Two</think>"),
        (
            [
                {"type": "text", "text": "T"},
                {"type": "text", "text": "wo</think>Fo"},
                {"type": "text", "text": "ur"},
            ],
            "Four",
            "Two</think>",
        ),
        ("<think>Four", "<think>Four", ""),
        ([{"type": "text", "text": "Four"}], "Four", ""),
    ],
)
def test_reasoning_in_an_earlier_answer_ends_at_its_tag(api: Api, answer: object, said: str, dropped: str) -> None:
    """Without a reasoning parser it stays in the content, often without its opening tag, which the prompt has."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    field = "input" if api is Api.RESPONSES else "messages"
    latest = read_request(api, json.dumps({field: turns}).encode())
    assert (latest.text.decode(), latest.dropped_text) == ("?" + dropped + said, b"")
    asked_again = [*turns, {"role": "user", "content": "Why? </think>"}]
    earlier = read_request(api, json.dumps({field: asked_again}).encode())
    assert (earlier.text.decode(), earlier.dropped_text.decode()) == (f"?{said}Why? </think>", dropped)
    assert [end for _, end in earlier.turns[-2:]] == [1 + len(said.encode()), len(earlier.text)]


def test_switches_that_are_not_json_keep_nothing() -> None:
    """The server refuses them; the rest of the body is read."""
    body = b'{"messages":[{"role":"user","content":"Hi"}],"chat_template_kwargs":{"preserve_thinking":"\xff"}}'
    assert read_request(Api.CHAT, body).text == b"Hi"


@pytest.mark.parametrize(
    ("api", "body", "endless", "limited"),
    [
        (Api.CHAT, HI, {"min_tokens": 20_000}, {"max_tokens": 20_000}),
        (Api.CHAT, HI, {"ignore_eos": True}, {"max_completion_tokens": 10}),
        (Api.COMPLETIONS, PROMPT | {"max_tokens": None}, {"ignore_eos": True}, {"max_tokens": 10}),
        (Api.COMPLETIONS, PROMPT | {"max_tokens": None}, {"min_tokens": 9}, {"max_tokens": 10}),
        (Api.RESPONSES, {"model": "m", "input": "Hi"}, {"ignore_eos": True}, {"max_output_tokens": 10}),
    ],
)
def test_an_output_that_may_not_end_by_itself_needs_a_limit(
    api: Api, body: dict[str, Any], endless: dict[str, Any], limited: dict[str, Any]
) -> None:
    """A server that is told not to stop early fills the pool's context unless there is a limit.

    With and without one, the length of the output is the client's.
    """
    assert (False, True, False) == (
        is_unseen(api, body),
        is_unseen(api, body | endless),
        is_unseen(api, body | endless | limited),
    )
    assert not is_unseen(api, body | {"min_tokens": 0, "ignore_eos": False})
    assert (False, True, True, False) == (
        is_forced(api, body),
        is_forced(api, body | endless),
        is_forced(api, body | endless | limited),
        is_forced(api, body | {"min_tokens": 0, "ignore_eos": False}),
    )


@pytest.mark.parametrize("api", [Api.CHAT, Api.COMPLETIONS])
@pytest.mark.parametrize(
    ("limits", "read"),
    [
        ({"n_predict": 20_000, "max_tokens": 10}, 20_000),
        ({"n_predict": 10, "max_tokens": 20_000}, 20_000),
        ({"n_predict": 0, "max_tokens": 10}, 10),
        ({"n_predict": -1, "max_tokens": 10}, None),
        ({"n_predict": None, "max_tokens": 10}, 10),
    ],
)
def test_the_limit_of_llama_cpp_can_only_raise_a_limit(api: Api, limits: dict[str, Any], read: int | None) -> None:
    """llama.cpp prefers its own limit, where -1 is none; other servers ignore it."""
    body = (HI if api is Api.CHAT else PROMPT) | limits
    assert read == read_request(api, json.dumps(body).encode()).max_output_tokens


def test_the_limit_of_llama_cpp_alone_is_none() -> None:
    """A server that ignores it generates as much as it likes."""
    assert read_request(Api.CHAT, json.dumps(HI | {"n_predict": 10}).encode()).max_output_tokens is None


def test_arguments_of_calls_may_be_objects() -> None:
    """SGLang takes them as text and as objects, which cost the same."""

    def facts(arguments: object) -> RequestFacts:
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [call]}]
        return read_request(Api.CHAT, json.dumps({"model": "m", "messages": messages}).encode())

    assert facts('{"city":"Paris","days":[1,2]}') == facts({"city": "Paris", "days": [1, 2]})
    assert facts(None) == facts("")
    with pytest.raises(BodyNotUnderstood):
        facts(5)


def test_a_part_may_be_reasoning() -> None:
    """SGLang takes the thoughts of an earlier turn as a part of the content."""
    part = {"type": "reasoning", "text": "Let me think."}
    facts = read_request(
        Api.CHAT, json.dumps({"model": "m", "messages": [{"role": "assistant", "content": [part]}]}).encode()
    )
    assert (b"Let me think.", False) == (facts.text, facts.unseen_history)


@pytest.mark.parametrize("sampling", [{"ignore_eos": True}, {"min_tokens": 9}, {"min_new_tokens": 9}])
def test_generate_may_not_end_by_itself_either(sampling: dict[str, Any]) -> None:
    """The same holds for the native generate APIs."""
    limited = sampling | {"max_new_tokens": 10}
    assert is_unseen(Api.GENERATE, {"text": "Hi", "sampling_params": sampling})
    assert not is_unseen(Api.GENERATE, {"text": "Hi", "sampling_params": limited})
    assert is_forced(Api.GENERATE, {"text": "Hi", "sampling_params": limited})
    assert is_forced(Api.GENERATE, {"text": ["Hi", "Ho"], "sampling_params": [{}, sampling]})
    assert not is_forced(Api.GENERATE, {"text": "Hi"})


def test_the_limit_of_generate_is_that_of_its_prompt() -> None:
    """`parameters` belong to `inputs`, as in TGI, and `sampling_params` to the other forms of prompt."""
    both = {"parameters": {"max_new_tokens": 20_000}, "sampling_params": {"max_new_tokens": 9}}
    limits = [
        read_request(Api.GENERATE, json.dumps(prompt | both).encode()).max_output_tokens
        for prompt in ({"inputs": "Hi"}, {"text": "Hi"}, {"token_ids": [1]})
    ]
    assert [20_000, 9, 9] == limits


@pytest.mark.parametrize(
    ("api", "body", "unseen"),
    [
        (Api.EMBEDDINGS, INPUT, False),
        (Api.EMBEDDINGS, {"model": "m"}, True),
        (Api.EMBEDDINGS, HI | INPUT, True),
        (Api.EMBEDDINGS, HI | {"tools": [{}]}, True),
        (Api.EMBEDDINGS, HI | {"chat_template": "{{ x }}"}, True),
        (Api.CHAT, {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, True),
        (Api.CHAT, {"messages": [{"role": "assistant", "content": "Hi", "audio": None}]}, False),
        (Api.COMPLETIONS, {"model": "m"}, True),
        (Api.COMPLETIONS, PROMPT | {"suffix": "Ho"}, False),
        (Api.COMPLETIONS, {"prompt": [1, 2], "suffix": "Ho"}, True),
        (Api.COMPLETIONS, {"prompt": ["Hi", "Ho"], "suffix": "Ho"}, True),
        (Api.RESPONSES, {"input": [{"id": "msg_123"}]}, True),
        (Api.RESPONSES, {"input": [{"role": "user", "content": ""}]}, False),
        (Api.RERANK, {"query": "Hi", "documents": [{"text": "a"}]}, False),
        (Api.RERANK, {"query": "Hi", "documents": [{"text": "a", "image": "data:"}]}, True),
        (Api.RERANK, {"query": "Hi", "documents": [{"text": "a", "content": []}]}, True),
    ],
)
def test_what_only_the_server_knows_is_unseen(api: Api, body: dict[str, Any], *, unseen: bool) -> None:
    """Two forms of a prompt, or none; parts that are not counted; references to what the server stores."""
    assert unseen == is_unseen(api, body)


MEDIA = [
    *((field, "images") for field in ("image_url", "image_pil", "image_embeds")),
    *((field, "audio") for field in ("audio_url", "audio_embeds", "input_audio")),
    *((field, "video") for field in ("video_url", "video_embeds")),
]


@pytest.mark.parametrize(("field", "kind"), MEDIA)
def test_media_without_a_type_count_next_to_a_text(field: str, kind: str) -> None:
    """Servers look for media before it looks for text; both are counted."""
    assert {kind: 1} == media_of({"text": "Hi", field: "x" * 100})


@pytest.mark.parametrize("value", ["x" * 100, None])
@pytest.mark.parametrize(("field", "kind"), MEDIA)
def test_media_with_an_id_count_also_if_they_are_cached(field: str, kind: str, value: str | None) -> None:
    """With a `uuid` a null one stands for media that vLLM has cached."""
    for given in ({}, {"type": field}):
        assert {kind: 1} == media_of({"text": "Hi", field: value, "uuid": "1"} | given)
    assert {} == media_of({"type": "text", "text": "Hi", field: value, "uuid": None})


@pytest.mark.parametrize("value", ["x" * 100, None])
def test_an_image_with_an_id_may_have_the_type_of_the_responses_api(value: str | None) -> None:
    """It is an image by its field and by its type."""
    assert {"images": 1} == media_of({"type": "input_image", "text": "Hi", "image_url": value, "uuid": "1"})


@pytest.mark.parametrize("kind", ["text", "thinking", "video_url"])
def test_a_part_with_an_id_may_be_two_things(kind: str) -> None:
    """With a `uuid` vLLM goes by the field alone, other servers by the type."""
    part = {"type": kind, kind: "x", "uuid": "1"}
    assert not is_unseen(Api.CHAT, {"messages": [{"content": [part]}]})
    assert is_unseen(Api.CHAT, {"messages": [{"content": [part | {"image_url": None}]}]})


def media_of(part: dict[str, Any]) -> dict[str, int]:
    """Return how many media of each kind a part of a message with the text "Hi" counts as, without zeros."""
    facts = read_request(Api.CHAT, json.dumps({"messages": [{"content": [part]}]}).encode())
    assert (b"Hi", False) == (facts.text, facts.unseen_history)
    counts = {"images": facts.media.images, "audio": facts.media.audio, "video": facts.media.video}
    return {kind: count for kind, count in counts.items() if count}


@pytest.mark.parametrize("field", ["prompt_embeds", "tool_reference"])
def test_parts_that_stand_for_a_prompt_of_unknown_length_need_no_type(field: str) -> None:
    """Embeddings of a prompt, and a tool that the template looks up, are not in the text."""
    for more in ({}, {"uuid": "1"}, {"type": field}):
        assert is_unseen(Api.CHAT, {"messages": [{"content": [{field: "x"} | more]}]}), more


def test_a_video_may_bring_its_sound() -> None:
    """Embeddings of a video may have those of its sound next to them, which vLLM adds to the prompt as well."""
    part = {"type": "video_embeds", "text": "Hi", "video_embeds": "x", "audio_embeds": "y"}
    assert {"video": 1, "audio": 1} == media_of(part)
    assert {"video": 1} == media_of(part | {"audio_embeds": None})


def test_a_null_in_place_of_media_is_none() -> None:
    """Clients that serialise absent fields as null send no image."""
    part = {"text": "Hi", "image_embeds": None, "image_url": None, "video_url": None}
    facts = read_request(Api.CHAT, json.dumps({"messages": [{"content": [part]}]}).encode())
    assert (0, 0, b"Hi") == (facts.media.images, facts.media.video, facts.text)


PIXELS = {"mm_processor_kwargs": {"min_pixels": 12_845_056}}
FRAMES = {"media_io_kwargs": {"video": {"num_frames": 2_000}}}
CHAT_MEDIA = [{"type": kind, kind: {"url": "http://x"}} for kind in ("image_url", "video_url", "audio_url")]


@pytest.mark.parametrize("settings", [PIXELS, FRAMES])
@pytest.mark.parametrize(
    ("api", "body", "of_text"),
    [
        *(
            (api, {"messages": [{"content": [part]}]}, HI)
            for api in (Api.CHAT, Api.EMBEDDINGS)
            for part in CHAT_MEDIA
        ),
        (Api.RESPONSES, {"input": [{"content": [{"type": "input_image", "image_url": "http://x"}]}]}, INPUT),
    ],
)
def test_media_with_settings_of_their_own_have_an_unknown_size(
    api: Api, body: dict[str, Any], of_text: dict[str, Any], settings: dict[str, Any]
) -> None:
    """The tokens per image or video are the client's choice then; without media the settings do nothing."""
    assert is_unseen(api, body | settings)
    assert not is_unseen(api, body | dict.fromkeys(settings))
    assert not is_unseen(api, body | {name: {} for name in settings})
    assert not is_unseen(api, of_text | settings)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.EMBEDDINGS, INPUT),
        (Api.RERANK, {"query": "q", "documents": ["d"]}),
        (Api.SCORE, {"text_1": "a", "text_2": "b"}),
    ],
)
def test_padding_makes_a_prompt_as_long_as_the_context(api: Api, body: dict[str, Any]) -> None:
    """Prompts of pooling models are padded on request, in vLLM."""
    assert [True, False, False] == [
        is_unseen(api, body | {"padding": padding}) for padding in ("max_length", "do_not_pad", None)
    ]


ROLE, CALL_ID = "word " * 20, "call_" + "x" * 60


@pytest.mark.parametrize(
    ("api", "body", "long"),
    [
        (Api.CHAT, {"messages": [{"role": ROLE, "content": "Hi"}]}, ROLE),
        (Api.EMBEDDINGS, {"messages": [{"role": ROLE, "content": "Hi"}]}, ROLE),
        (Api.MESSAGES, {"messages": [{"role": ROLE, "content": "Hi"}]}, ROLE),
        (Api.RESPONSES, {"input": [{"role": ROLE, "content": "Hi"}]}, ROLE),
        (Api.CHAT, {"messages": [{"role": "tool", "tool_call_id": CALL_ID}]}, CALL_ID),
        (Api.CHAT, {"messages": [{"role": "assistant", "tool_calls": [{"id": CALL_ID}]}]}, CALL_ID),
        (Api.MESSAGES, {"messages": [{"content": [{"type": "tool_use", "id": CALL_ID}]}]}, CALL_ID),
        (Api.MESSAGES, {"messages": [{"content": [{"type": "tool_result", "tool_use_id": CALL_ID}]}]}, CALL_ID),
        (Api.RESPONSES, {"input": [{"type": "function_call", "call_id": CALL_ID}]}, CALL_ID),
        (Api.RESPONSES, {"input": [{"type": "function_call_output", "call_id": CALL_ID}]}, CALL_ID),
    ],
)
def test_long_roles_and_ids_are_text(api: Api, body: dict[str, Any], long: str) -> None:
    """Some templates render them as they are; usual ones are part of a message's constant number of tokens."""
    facts = read_request(api, json.dumps(body).encode())
    assert long.encode() in facts.text
    if facts.turns:
        assert facts.turns[-1][1] == len(facts.text)
    usual = json.dumps(body).replace(ROLE, "assistant").replace(CALL_ID, "chatcmpl-tool-" + "0" * 32)
    assert read_request(api, usual.encode()).text in (b"", b"Hi")


@pytest.mark.parametrize(("length", "is_text"), [(64, False), (65, True)])
def test_an_id_of_64_characters_is_a_usual_one(length: int, is_text: bool) -> None:  # noqa: FBT001
    """No server makes longer ones."""
    message = {"role": "tool", "tool_call_id": "x" * length}
    assert is_text is bool(read_request(Api.CHAT, json.dumps({"messages": [message]}).encode()).text)


@pytest.mark.parametrize("kind", ["local_shell_call_output", "custom_tool_call_output"])
def test_the_type_of_an_item_is_not_text(kind: str) -> None:
    """Only its output is."""
    assert (
        read_request(Api.RESPONSES, json.dumps({"input": [{"type": kind, "output": "o"}]}).encode()).text == b"o"
    )


@pytest.mark.parametrize("field", ["tool_prompt", "guideline"])
def test_texts_that_tgi_adds_to_the_template_are_counted(field: str) -> None:
    """They come with the tools, behind the messages."""
    assert read_request(Api.CHAT, json.dumps(HI | {field: "word"}).encode()).text == b"Hiword"


@pytest.mark.parametrize(
    ("api", "body", "field"),
    [
        (Api.CHAT, HI, "max_tokens"),
        (Api.CHAT, HI, "max_completion_tokens"),
        (Api.MESSAGES, HI, "max_tokens"),
        (Api.RESPONSES, INPUT, "max_output_tokens"),
    ],
)
def test_a_limit_of_0_is_none_in_a_conversation(api: Api, body: dict[str, Any], field: str) -> None:
    """Some servers refuse it, some read it as absent; as such it reserves more."""
    facts = read_request(api, json.dumps(body | {field: 0}).encode())
    assert facts.max_output_tokens is None


def test_a_limit_of_0_leaves_the_output_of_a_chat_endless() -> None:
    """As without a limit."""
    assert is_unseen(Api.CHAT, HI | {"max_completion_tokens": 0, "ignore_eos": True})


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.COMPLETIONS, PROMPT | {"max_tokens": 0, "echo": True}),
        (Api.GENERATE, {"text": "Hi", "sampling_params": {"max_new_tokens": 0}}),
    ],
)
def test_a_limit_of_0_is_a_prompt_without_output_elsewhere(api: Api, body: dict[str, Any]) -> None:
    """Clients ask for a prompt's probabilities in this way."""
    assert read_request(api, json.dumps(body).encode()).max_output_tokens == 0


@pytest.mark.parametrize(
    "field",
    [
        *("input_embeds", "image_data", "video_data", "audio_data"),
        *("features", "content_parts", "session_params", "kv_transfer_params"),
    ],
)
def test_what_a_generate_request_has_besides_its_text(field: str) -> None:
    """Media, embeddings, sessions and another server's cache are part of the prompt, unless there are none."""
    assert is_unseen(Api.GENERATE, {"text": "Hi", field: ["x"]})
    nothing: tuple[Any, ...] = (None, [], {})
    assert not any(is_unseen(Api.GENERATE, {"text": "Hi", field: each}) for each in nothing)
