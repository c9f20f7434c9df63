import json
from typing import Any

import pytest

from extproc.core.apis import FAMILIES, read_request
from extproc.core.errors import BodyFault, BodyNotUnderstood, ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, RequestFacts
from extproc.core.usage import Usage


def read(api: Api, **fields: Any) -> RequestFacts:
    """Read a body as httpx writes it."""
    return read_request(api, json.dumps({"model": "m"} | fields, ensure_ascii=False).encode())


def test_a_rerank_is_a_prompt_for_each_document() -> None:
    """The query is read with each document; the longest pair is what has to fit."""
    facts = read(Api.RERANK, query="abc", documents=["d", {"text": "efghi"}, "é"], top_n=1)
    expected = RequestFacts(
        api=Api.RERANK,
        model="m",
        text="abcabcabcdefghié".encode(),
        longest_share=8 / 17,
        sequences=3,
        max_output_tokens=0,
    )
    assert expected == facts


def test_an_instruct_is_read_with_each_document() -> None:
    """SGLang renders it into the prompt of each pair, like the query."""
    facts = read(Api.RERANK, query="abc", documents=["d", "ef"], instruct="IN")
    assert (b"INabcINabcdef", 7 / 13, 2) == (facts.text, facts.longest_share, facts.sequences)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (Api.RERANK, {"query": "abc", "documents": ["d", "ef"]}),
        (Api.SCORE, {"text_1": "abc", "text_2": ["d", "ef"]}),
        (Api.SCORE, {"queries": "abc", "documents": ["d", "ef"]}),
    ],
)
def test_an_instruction_is_read_with_each_pair(api: Api, body: dict[str, Any]) -> None:
    """In vLLM, it is rendered, with the values for the template, into the prompt of each pair."""
    facts = read(api, **body, instruction="IN")
    assert (b"INabcINabcdef", 7 / 13, 2) == (facts.text, facts.longest_share, facts.sequences)
    assert read(api, **body, chat_template_kwargs={"instruction": "IN"}).text.count(b"IN") == 2
    assert read(api, **body, chat_template_kwargs={"instruction": "IN" * 200}).unseen_history


@pytest.mark.parametrize(
    "other",
    [{"queries": "a", "documents": "b"}, {"queries": "a", "items": "b"}, {"data_1": "a", "data_2": "b"}],
)
def test_only_the_server_knows_which_of_two_pairs_it_scores(other: dict[str, Any]) -> None:
    """In vLLM, queries and data take precedence over text_1 and text_2."""
    assert not read(Api.SCORE, text_1="c", text_2="d").unseen_history
    assert read(Api.SCORE, text_1="c", text_2="d", **other).unseen_history


@pytest.mark.parametrize("name", ["text_1", "text_2"])
def test_half_a_pair_besides_another_makes_it_ambiguous(name: str) -> None:
    """So does either of the two names that are read first."""
    assert read(Api.SCORE, **{"queries": "a", "documents": "b", name: "c"}).unseen_history


@pytest.mark.parametrize(("size", "expanded"), [(260, True), (263, False)])
def test_an_instruction_counts_once_for_each_pair(size: int, expanded: bool) -> None:  # noqa: FBT001
    """Half a megabyte of text is made of a request at most, however it is multiplied."""
    facts = read(Api.RERANK, query="q", documents=["d"] * 2_000, instruction="I" * size)
    assert ((size + 2) * 2_000 if expanded else 0, not expanded) == (len(facts.text), facts.unseen_history)


def test_the_parts_of_a_query_are_one_prompt() -> None:
    """SGLang takes a query in parts, which it reads together with each document."""
    parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]
    whole, in_parts = (read(Api.RERANK, query=query, documents=["d", "ef"]) for query in ("abc", parts))
    assert whole == in_parts


@pytest.mark.parametrize(
    "fields",
    [
        {"text_1": "ab", "text_2": ["c", "def"]},
        {"text_1": ["ab", "ab"], "text_2": ["c", "def"]},
        {"queries": "ab", "documents": ["c", "def"]},
    ],
)
def test_a_score_pairs_texts(fields: dict[str, Any]) -> None:
    """One text is paired with each of several, or each with its counterpart, under either pair of field names."""
    facts = read(Api.SCORE, truncate_prompt_tokens=9, **fields)
    assert (b"ababcdef", 5 / 8, 2, 9) == (
        facts.text,
        facts.longest_share,
        facts.sequences,
        facts.truncate_prompt_tokens,
    )
    assert not facts.unseen_history


@pytest.mark.parametrize(
    ("api", "fields"),
    [
        (Api.RERANK, {}),
        (Api.RERANK, {"query": "q"}),
        (Api.RERANK, {"query": {"content": [{"type": "image_url"}]}, "documents": ["d"]}),
        (Api.RERANK, {"query": "q", "documents": [{"image": "..."}]}),
        (Api.RERANK, {"query": [{"text": "q"}, {"image_url": {"url": "http://x"}}], "documents": ["d"]}),
        (Api.RERANK, {"query": [{"text": "q", "image_url": {"url": "http://x"}}], "documents": ["d"]}),
        (Api.RERANK, {"query": [{"text": "q", "video_url": {"url": "http://x"}}], "documents": ["d"]}),
        (Api.RERANK, {"query": "q" * 100_000, "documents": ["d"] * 20}),
        (Api.SCORE, {"data_1": "a", "data_2": "b"}),
    ],
)
def test_what_is_not_text_or_too_long_is_unseen(api: Api, fields: dict[str, Any]) -> None:
    """Images, fields of another version, or a long query times many documents are left to the default pool."""
    assert read(api, **fields).unseen_history


@pytest.mark.parametrize("field", ["max_tokens_per_query", "max_tokens_per_doc"])
@pytest.mark.parametrize(("limit", "unseen"), [(50, True), (0, False), (None, False)])
def test_texts_that_the_server_cuts_are_unseen(field: str, limit: int | None, *, unseen: bool) -> None:
    """A document of 7,500 bytes cut to 50 tokens is 59 in vLLM 0.32: nothing may be learned from its bytes."""
    facts = read(Api.RERANK, query="abc", documents=["d" * 7500], **{field: limit})
    assert unseen == facts.unseen_history


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"text_1": ["a", "b"], "text_2": ["c", "d", "e"]}, BodyFault.WRONG_TYPE),
        ({"text_1": 7, "text_2": "c"}, BodyFault.WRONG_TYPE),
        ({"text_1": "a", "text_2": [""] * 2049}, BodyFault.TOO_MANY),
    ],
)
def test_texts_that_cannot_be_paired(fields: dict[str, Any], fault: BodyFault) -> None:
    """Numbers of texts that do not match, wrong types, and too many texts are reported."""
    with pytest.raises(BodyNotUnderstood) as raised:
        read(Api.SCORE, **fields)
    assert fault is raised.value.fault


@pytest.mark.parametrize(
    ("response", "usage"),
    [
        ({"usage": {"total_tokens": 40}}, Usage(40, 0)),
        ({"usage": {"prompt_tokens": 41, "total_tokens": 41, "completion_tokens": 0}}, Usage(41, 0)),
    ],
)
def test_usage_of_pairs(response: dict[str, Any], usage: Usage) -> None:
    """Older rerank responses report only a total."""
    assert usage == FAMILIES[Api.RERANK].read_response(json.dumps(response).encode())


def test_pairs_without_usage_do_not_teach() -> None:
    """A response of another server may have no usage."""
    with pytest.raises(ResponseNotUnderstood) as raised:
        FAMILIES[Api.SCORE].read_response(b'{"scores": [0.5]}')
    assert ResponseFault.NO_USAGE is raised.value.fault


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "abc", "sampling_params": {"max_new_tokens": 7, "n": 2}}, (b"abc", None, 7, 2, True)),
        ({"text": ["a", "bc"], "sampling_params": [{"max_new_tokens": 3}, {"max_new_tokens": 9}]},
         (b"abc", None, 9, 2, True)),
        ({"text": ["a"], "sampling_params": [{"max_new_tokens": 3}, {}]}, (b"a", None, None, 1, True)),
        ({"input_ids": [1, 2, 3]}, (b"", 3, None, 1, True)),
        ({"text": "abc", "stream": True}, (b"abc", None, None, 1, False)),
        ({"inputs": "abc", "parameters": {"max_new_tokens": 5, "best_of": 3}}, (b"abc", None, 5, 3, False)),
        ({"token_ids": [1, 2], "sampling_params": {"max_tokens": 4}}, (b"", 2, 4, 1, True)),
        ({"token_ids": [1, 2], "stream": True}, (b"", 2, None, 1, False)),
    ],
)  # fmt: skip
def test_generate(fields: dict[str, Any], expected: tuple[bytes, int | None, int | None, int, bool]) -> None:
    """SGLang, TGI and vLLM each have their own form of a prompt and its limit."""
    facts = read(Api.GENERATE, **fields)
    assert expected == (
        facts.text,
        facts.exact_prompt_tokens,
        facts.max_output_tokens,
        facts.sequences,
        facts.usage_in_response,
    )
    assert not facts.unseen_history


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": "a", "inputs": "b"},
        {"text": "a", "image_data": "https://x/y.png"},
        {"input_embeds": [[0.5]]},
        {"token_ids": [1], "features": {"mm_hashes": {"image": ["x"]}}},
        {"token_ids": [1], "content_parts": [{"type": "image_url", "url": "https://x/y.png"}]},
        {"token_ids": [1], "kv_transfer_params": {"do_remote_decode": True}},
        {"text": "a", "session_params": {"id": "s"}},
    ],
)
def test_an_incomplete_prompt_is_unseen(fields: dict[str, Any]) -> None:
    """Media, embeddings, sessions, remote caches, and a missing or repeated prompt go to the default pool."""
    assert read(Api.GENERATE, **fields).unseen_history


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ({"type": "length", "length": 3}, True),
        ("length", True),
        ({"type": "abort", "message": "Abort before prefill"}, True),
        ({"type": "stop", "matched": 2}, False),
        ("stop", False),
        ({}, False),
        (None, False),
    ],
)
def test_an_output_that_sglang_cut_is_recognised(reason: object, *, cut: bool) -> None:
    """SGLang's reason is an object; a cut or aborted output says nothing about the length that was wanted."""
    meta = {"prompt_tokens": 9, "completion_tokens": 3, "finish_reason": reason}
    response = json.dumps({"meta_info": meta}).encode()
    assert Usage(9, 3, 0, cut) == FAMILIES[Api.GENERATE].read_response(response)


def test_usage_of_sglang() -> None:
    """SGLang reports usage in meta_info."""
    response = b'{"text": "x", "meta_info": {"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 4}}'
    assert Usage(9, 3, 4) == FAMILIES[Api.GENERATE].read_response(response)


@pytest.mark.parametrize(("reason", "cut"), [("length", True), ("stop", False)])
def test_usage_of_vllms_generate(reason: str, *, cut: bool) -> None:
    """It is reported as for completions."""
    choice = {"index": 0, "token_ids": [7, 8, 9], "finish_reason": reason}
    tokens = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    response = json.dumps({"request_id": "r", "choices": [choice], "usage": tokens}).encode()
    assert Usage(9, 3, 0, cut) == FAMILIES[Api.GENERATE].read_response(response)


def test_tgi_reports_no_usage() -> None:
    """Its response is the text alone."""
    with pytest.raises(ResponseNotUnderstood) as raised:
        FAMILIES[Api.GENERATE].read_response(b'{"generated_text": "x"}')
    assert ResponseFault.NO_USAGE is raised.value.fault
