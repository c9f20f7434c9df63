import json
from typing import Any

import pytest

from extproc.core.apis import read_request
from extproc.core.errors import BodyNotUnderstood
from extproc.core.facts import CUT_TO_FIT, Api, MediaCount, RequestFacts


def read(api: Api, **fields: Any) -> RequestFacts:
    """Read a body as httpx writes it."""
    return read_request(api, json.dumps({"model": "m"} | fields, ensure_ascii=False).encode())


PROMPT_FIELDS = pytest.mark.parametrize(
    ("api", "field"), [(Api.COMPLETIONS, "prompt"), (Api.EMBEDDINGS, "input")], ids=["completions", "embeddings"]
)


@PROMPT_FIELDS
@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ("Once upon a time", (b"Once upon a time", None, 1.0)),
        (["one"], (b"one", None, 1.0)),
        (["one", "three", ""], (b"onethree", None, 5 / 8)),
        (["é", "ab"], ("éab".encode(), None, 0.5)),
        ([], (b"", None, 1.0)),
        (["", ""], (b"", None, 1.0)),
        ([5, 17, 9906], (b"", 3, 1.0)),
        ([[1, 2, 3], [4]], (b"", 4, 0.75)),
        ([[]], (b"", 0, 1.0)),
        (None, (b"", None, 1.0)),
    ],
)
def test_prompts(api: Api, field: str, prompts: object, expected: tuple[bytes, int | None, float]) -> None:
    """Prompts are text, or token ids, which give an exact count; `longest_share` is the longest prompt's share."""
    facts = read(api, **{field: prompts})
    assert (facts.text, facts.exact_prompt_tokens, facts.longest_share) == expected


@pytest.mark.parametrize(
    ("fields", "limit"), [({}, 16), ({"max_tokens": None}, None), ({"max_tokens": 0}, 0), ({"max_tokens": 7}, 7)]
)
def test_completions_end_after_16_tokens_by_default(fields: dict[str, Any], limit: int | None) -> None:
    """A completion without max_tokens has the API's own limit of 16; null asks for as much as fits."""
    assert read(Api.COMPLETIONS, prompt="x", **fields).max_output_tokens == limit


def test_completion_with_everything() -> None:
    """All facts of a completion are read."""
    facts = read(
        Api.COMPLETIONS,
        prompt="def f(",
        suffix="return x",
        max_tokens=64,
        n=2,
        best_of=4,
        stream=True,
        stream_options={"include_usage": True},
        truncate_prompt_tokens=100,
        logprobs=5,
    )
    expected = RequestFacts(
        api=Api.COMPLETIONS,
        model="m",
        text=b"def f(return x",
        max_output_tokens=64,
        sequences=4,
        stream=True,
        truncate_prompt_tokens=100,
    )
    assert facts == expected


def test_stream_of_a_completion_reports_no_usage_unasked() -> None:
    """A completion's stream has no usage unless asked for."""
    assert not read(Api.COMPLETIONS, prompt="x", stream=True).usage_in_response


def test_prompt_embeddings_are_unseen() -> None:
    """The length of a prompt given as embeddings is not known."""
    assert read(Api.COMPLETIONS, prompt_embeds="AAAA").unseen_history


def test_embeddings_have_no_output() -> None:
    """An embedding needs room only for its prompt."""
    facts = read(Api.EMBEDDINGS, input="x", dimensions=256, encoding_format="base64", truncate_prompt_tokens=-1)
    expected = RequestFacts(Api.EMBEDDINGS, "m", b"x", max_output_tokens=0, truncate_prompt_tokens=CUT_TO_FIT)
    assert facts == expected


def test_embedding_of_a_conversation() -> None:
    """A conversation can be embedded too, including its images."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA"}}
    content = [image, {"text": "a cat"}]
    facts = read(Api.EMBEDDINGS, messages=[{"role": "user", "content": content}])
    assert (facts.text, facts.messages, facts.media) == (b"a cat", 1, MediaCount(small_images=1))


@PROMPT_FIELDS
@pytest.mark.parametrize("prompts", [[5, -1], [[5], [-1]], [5, 1.5], [[5], "text"]])
def test_invalid_token_ids_are_rejected(api: Api, field: str, prompts: object) -> None:
    """Token ids are integers of at least 0, and every element of a list has to be one."""
    with pytest.raises(BodyNotUnderstood):
        read(api, **{field: prompts})


@pytest.mark.parametrize("prompts", [["one", "two", "three"], [[1], [2, 3], [4]]])
def test_each_prompt_of_a_completion_has_its_outputs(prompts: object) -> None:
    """With n outputs per prompt the servers generate n for each of them."""
    assert 3 == read(Api.COMPLETIONS, prompt=prompts).sequences
    assert 6 == read(Api.COMPLETIONS, prompt=prompts, n=2).sequences
