"""`/v1/embeddings`. A real vLLM serves either embeddings or completions; the emulator serves both."""

import struct
from base64 import b64encode
from collections.abc import Iterator
from random import Random
from typing import Any, Literal

from extproc.emulator.apis.base import Body, check_counts, validated
from extproc.emulator.apis.completions import TextOrIds, prompts_of
from extproc.emulator.refusals import Refusal
from extproc.emulator.work import Event, Job, Prompt, Work

__all__ = ["EmbeddingsApi"]

DIMENSIONS = 64


class EmbeddingsApi:
    """OpenAI's embeddings: random vectors, seeded with the text's hash."""

    path = "/v1/embeddings"

    def read(self, data: object) -> Work:
        """Read a decoded body. Raises Refusal."""
        body = validated(_Request, data)
        work = Work(
            prompts=prompts_of(body.input),
            model=body.model,
            truncate_prompt_tokens=body.truncate_prompt_tokens,
            generates=False,
            base64=body.encoding_format == "base64",
        )
        return check_counts(work)

    def response(self, job: Job) -> dict[str, Any]:
        """Return the JSON response."""
        data = [
            {"index": index, "object": "embedding", "embedding": _vector(prompt, base64=job.work.base64)}
            for index, prompt in enumerate(job.work.prompts)
        ]
        usage = {"prompt_tokens": job.usage.prompt_tokens, "total_tokens": job.usage.prompt_tokens}
        head = {"id": f"embd-{job.request_id}", "object": "list", "created": job.created_s, "model": job.model}
        return head | {"data": data, "usage": usage}

    def events(self, job: Job) -> Iterator[Event]:
        """Fail: embeddings are never streamed, so this is never called."""
        raise AssertionError(job)

    def refusal(self, refusal: Refusal) -> dict[str, object]:
        """Return the body of a refusal."""
        return refusal.openai_body()


class _Request(Body):
    input: TextOrIds
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    truncate_prompt_tokens: int | None = None


def _vector(prompt: Prompt, *, base64: bool) -> list[float] | str:
    random = Random(prompt.digest())  # noqa: S311  (not a secret; it must be repeatable)
    values = [random.uniform(-1, 1) for _ in range(DIMENSIONS)]
    return b64encode(struct.pack(f"<{DIMENSIONS}f", *values)).decode() if base64 else values
