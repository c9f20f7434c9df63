"""Rerank and score, as in vLLM, Jina and Cohere: each pair of texts is one prompt without output tokens.

A reranker reads the query again with every document, and usage counts it each time. So the text of a request is
the query, repeated once per document with the instruction (SGLang's `instruct`; vLLM's `instruction`, and what it
passes to the template), and the documents.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.core.apis.bodies import (
    Number,
    check_count,
    compact_json,
    decode_body,
    is_set,
    model_key,
    pads_prompt,
    prompt_cap,
)
from extproc.core.apis.family import Family
from extproc.core.apis.shares import longest_share
from extproc.core.apis.template_values import adds_to_prompt
from extproc.core.errors import BodyFault, BodyNotUnderstood, ResponseFault, ResponseNotUnderstood
from extproc.core.facts import Api, RequestFacts
from extproc.core.reading.usages import checked_usage, decode_response
from extproc.core.usage import Usage

__all__ = ["RERANK", "SCORE"]

# OpenAI's limit for the inputs of one embeddings request.
MAX_PAIRS: Final = 2048
# Larger requests are not expanded to text: they exceed what a smaller pool holds anyway.
MAX_TEXT_BYTES: Final = 1 << 19


class _Document(msgspec.Struct, frozen=True, gc=False):
    """A document, or a part of SGLang's query."""

    text: str | None = None
    image: msgspec.Raw = msgspec.Raw()
    image_url: msgspec.Raw = msgspec.Raw()
    video_url: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()

    def only_text(self) -> str | None:
        """Return the text if there is nothing else."""
        others = (self.image, self.image_url, self.video_url, self.content)
        return None if any(map(is_set, others)) else self.text


class _Pairs(msgspec.Struct, frozen=True, gc=False):
    documents: msgspec.Raw = msgspec.Raw()
    model: str | None = None
    truncate_prompt_tokens: Number = msgspec.Raw()
    padding: msgspec.Raw = msgspec.Raw()
    max_tokens_per_query: msgspec.Raw = msgspec.Raw()
    max_tokens_per_doc: msgspec.Raw = msgspec.Raw()
    instruct: str | None = None
    instruction: str | None = None
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()

    def cuts_texts(self) -> bool:
        """Return whether the server cuts each text to a number of tokens, so bytes do not show what is left."""
        cuts = (self.max_tokens_per_query, self.max_tokens_per_doc)
        return any(is_set(cut) and bytes(cut) != b"0" for cut in cuts)

    def instructions(self) -> bytes:
        """Return what is added to each pair, except values for the template that cannot be measured."""
        values = self.chat_template_kwargs
        more = "" if adds_to_prompt(values) else compact_json(values, unescape=False)
        return f"{self.instruct or ''}{self.instruction or ''}{more}".encode()


class _Rerank(_Pairs, frozen=True, gc=False):
    query: msgspec.Raw = msgspec.Raw()


class _Score(_Pairs, frozen=True, gc=False):
    text_1: msgspec.Raw = msgspec.Raw()
    text_2: msgspec.Raw = msgspec.Raw()
    queries: msgspec.Raw = msgspec.Raw()
    items: msgspec.Raw = msgspec.Raw()
    data_1: msgspec.Raw = msgspec.Raw()
    data_2: msgspec.Raw = msgspec.Raw()

    def is_ambiguous(self) -> bool:
        """Return whether there is a pair besides the one that is read: only the server knows which it uses."""
        texts = is_set(self.text_1) or is_set(self.text_2)
        named = is_set(self.queries) or is_set(self.documents)
        return (texts and named) or any(map(is_set, (self.items, self.data_1, self.data_2)))


_RERANK = msgspec.json.Decoder(_Rerank)
_SCORE = msgspec.json.Decoder(_Score)
_TEXTS: Final = msgspec.json.Decoder(str | list[str | _Document])


def read_rerank(body: bytes) -> RequestFacts:
    """Read the facts of a rerank request. Raises BodyNotUnderstood."""
    request = decode_body(_RERANK, body)
    parts = _texts(request.query)
    query = None if parts is None else [b"".join(parts)]
    return _facts(Api.RERANK, request, query, _texts(request.documents))


def read_score(body: bytes) -> RequestFacts:
    """Read the facts of a score request: text_1 and text_2, for which vLLM also accepts queries and documents.

    Raises BodyNotUnderstood.
    """
    request = decode_body(_SCORE, body)
    one = request.text_1 if is_set(request.text_1) else request.queries
    other = request.text_2 if is_set(request.text_2) else request.documents
    return _facts(Api.SCORE, request, None if request.is_ambiguous() else _texts(one), _texts(other))


def _texts(value: msgspec.Raw) -> list[bytes] | None:
    """Return the texts of one side, one or several; None if the field is absent or not text."""
    if not is_set(value) or bytes(value).startswith(b"{"):  # an object: parts of text and images
        return None
    check_count(value, MAX_PAIRS, "texts")
    texts = decode_body(_TEXTS, value)
    if isinstance(texts, str):
        return [texts.encode()]
    if len(texts) > MAX_PAIRS:
        raise BodyNotUnderstood(BodyFault.TOO_MANY, f"{len(texts)} texts; at most {MAX_PAIRS} are read")
    found = [each if isinstance(each, str) else each.only_text() for each in texts]
    return None if None in found else [text.encode() for text in found if text is not None]


def _facts(api: Api, request: _Pairs, one: list[bytes] | None, other: list[bytes] | None) -> RequestFacts:
    text, share, count = b"", 1.0, 1
    unseen = one is None or other is None or pads_prompt(request.padding) or request.cuts_texts()
    unseen = unseen or adds_to_prompt(request.chat_template_kwargs)
    if one and other:
        count, added = max(len(one), len(other)), request.instructions()
        texts = [*_repeated(one, count), *_repeated(other, count)]
        if sum(map(len, texts)) + count * len(added) > MAX_TEXT_BYTES:
            unseen = True
        else:
            texts[:count] = [added + text for text in texts[:count]] if added else texts[:count]
            text, share = b"".join(texts), longest_share(texts, parts=2)
    return RequestFacts(
        api=api,
        model=model_key(request.model),
        text=text,
        longest_share=share,
        sequences=count,
        max_output_tokens=0,
        truncate_prompt_tokens=prompt_cap(request.truncate_prompt_tokens),
        unseen_history=unseen,
    )


def _repeated(texts: Sequence[bytes], count: int) -> Sequence[bytes]:
    """Return `count` texts; a single one is repeated, to be paired with each of the other side.

    Raises BodyNotUnderstood.
    """
    if len(texts) not in (1, count):
        raise BodyNotUnderstood(BodyFault.WRONG_TYPE, f"{len(texts)} texts cannot be paired with {count}")
    return texts if len(texts) == count else list(texts) * count


class _Tokens(msgspec.Struct, frozen=True, gc=False):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Response(msgspec.Struct, frozen=True, gc=False):
    usage: _Tokens | None = None


_RESPONSE = msgspec.json.Decoder(_Response)


def read_response(body: bytes | bytearray) -> Usage:
    """Read the usage of a complete response; rerank in older vLLM reports only a total.

    Raises ResponseNotUnderstood.
    """
    usage = decode_response(_RESPONSE, body).usage
    if usage is None:
        raise ResponseNotUnderstood(ResponseFault.NO_USAGE)
    tokens = usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    return checked_usage(tokens, None, None, cut_by_length=False)


RERANK: Final = Family(
    Api.RERANK, "rerank", read_rerank, read_response, several_prompts=True, paths=("/rerank", "/v2/rerank")
)
SCORE: Final = Family(Api.SCORE, "score", read_score, read_response, several_prompts=True, paths=("/score",))
