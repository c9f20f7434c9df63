"""`/v1/completions`: a text, several texts, token ids, or lists of token ids."""

from collections.abc import Iterator
from typing import Any

from extproc.emulator.apis.base import DONE, Body, check_counts, sse, validated
from extproc.emulator.apis.chat import Options, usage_object
from extproc.emulator.refusals import Refusal
from extproc.emulator.work import Event, Job, Prompt, Work

__all__ = ["CompletionsApi", "TextOrIds", "prompts_of"]

TextOrIds = str | list[int] | list[str] | list[list[int]]
NO_PROMPT = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
DEFAULT_MAX_TOKENS = 16  # this API's default; chat has none


def prompts_of(value: TextOrIds) -> tuple[Prompt, ...]:
    """Return the prompts in a field; texts are used as they are, without a template."""
    match value:
        case str():
            return (Prompt((value,)),)
        case [int(), *_]:
            return (_prompt_of_ids(value),)
        case _:
            return tuple(Prompt((each,)) if isinstance(each, str) else _prompt_of_ids(each) for each in value)


class CompletionsApi:
    """OpenAI's legacy completions."""

    path = "/v1/completions"

    def read(self, data: object) -> Work:
        """Read a decoded body. Raises Refusal."""
        body = validated(_Request, data)
        if not body.prompt:
            raise Refusal(NO_PROMPT, param="prompt")
        work = Work(
            prompts=prompts_of(body.prompt),
            model=body.model,
            # To echo the prompt alone, vLLM makes one token that it does not return.
            max_tokens=1 if body.echo and body.max_tokens == 0 else body.max_tokens,
            n=1 if body.n is None else body.n,
            min_tokens=body.min_tokens or 0,
            ignore_eos=bool(body.ignore_eos),
            truncate_prompt_tokens=body.truncate_prompt_tokens,
            stream=bool(body.stream),
            include_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
        )
        return check_counts(work)

    def response(self, job: Job) -> dict[str, Any]:
        """Return the JSON response."""
        choices = [_choice(each.index, each.text, each.finish_reason) for each in job.sequences]
        return _head(job) | {"choices": choices, "usage": usage_object(job.usage)}

    def events(self, job: Job) -> Iterator[Event]:
        """Return the streamed response: an event per token, usage if requested, and `[DONE]`."""
        for step in job.steps():
            reason = step.sequence.finish_reason if step.last else None
            choice = _choice(step.sequence.index, step.piece, reason)
            yield sse(_head(job) | {"choices": [choice]}, decodes=step.first)
        if job.work.include_usage:
            yield sse(_head(job) | {"choices": [], "usage": usage_object(job.usage)})
        yield DONE

    def refusal(self, refusal: Refusal) -> dict[str, object]:
        """Return the body of a refusal."""
        return refusal.openai_body()


class _Request(Body):
    prompt: TextOrIds
    model: str | None = None
    max_tokens: int | None = DEFAULT_MAX_TOKENS
    n: int | None = 1
    min_tokens: int | None = 0
    ignore_eos: bool | None = False
    truncate_prompt_tokens: int | None = None
    stream: bool | None = False
    stream_options: Options | None = None
    echo: bool | None = False


def _prompt_of_ids(ids: object) -> Prompt:
    assert isinstance(ids, list)
    return Prompt(token_ids=len(ids), seed=repr(ids[:4096]))


def _head(job: Job) -> dict[str, Any]:
    return {
        "id": f"cmpl-{job.request_id}",
        "object": "text_completion",
        "created": job.created_s,
        "model": job.model,
    }


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}
