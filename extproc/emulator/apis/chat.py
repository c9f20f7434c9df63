"""`/v1/chat/completions`."""

from collections.abc import Iterator, Sequence
from typing import Any

from extproc.emulator.apis.base import DONE, Body, check_counts, sse, validated
from extproc.emulator.refusals import Refusal
from extproc.emulator.template import ChatTemplate
from extproc.emulator.work import Event, Job, Usage, Work

__all__ = ["ChatApi", "Options", "usage_object"]


NO_MESSAGES = "Cannot apply chat template to an empty conversation. Provide at least one message."
UNTRUSTED_TEMPLATE = (
    "Chat template is passed with request, but --trust-request-chat-template is not set. Refused request with "
    "untrusted chat template."
)


class Options(Body):
    """`stream_options`."""

    include_usage: bool | None = False


class ChatApi:
    """OpenAI's chat completions. Tools are read (they cost tokens) but never called: all responses are text."""

    path = "/v1/chat/completions"

    def read(self, data: object) -> Work:
        """Read a decoded body. Raises Refusal."""
        body = validated(_Request, data)
        if body.chat_template:
            raise Refusal(UNTRUSTED_TEMPLATE)
        if not body.messages:
            raise Refusal(NO_MESSAGES)
        template = ChatTemplate()
        template.tools(body.tools or [])
        for message in body.messages:
            template.turn(message.role, _content(template, message))
        limit = body.max_completion_tokens
        work = Work(
            prompts=(
                template.prompt(
                    opens=body.add_generation_prompt is not False, continues=bool(body.continue_final_message)
                ),
            ),
            model=body.model,
            max_tokens=body.max_tokens if limit is None else limit,
            limit_param="max_tokens" if limit is None else "max_completion_tokens",
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
        choices = [
            {
                "index": each.index,
                "message": {"role": "assistant", "content": each.text, "tool_calls": []},
                "logprobs": None,
                "finish_reason": each.finish_reason,
                "stop_reason": None,
            }
            for each in job.sequences
        ]
        return _head(job, "chat.completion") | {"choices": choices, "usage": usage_object(job.usage)}

    def events(self, job: Job) -> Iterator[Event]:
        """Return the streamed response: the roles, an event per token, usage if requested, and `[DONE]`."""
        head = _head(job, "chat.completion.chunk")
        for sequence in job.sequences:
            yield sse(head | {"choices": [_delta(sequence.index, {"role": "assistant", "content": ""})]})
        for step in job.steps():
            reason = step.sequence.finish_reason if step.last else None
            choice = _delta(step.sequence.index, {"content": step.piece}, reason)
            yield sse(head | {"choices": [choice]}, decodes=step.first)
        if job.work.include_usage:
            yield sse(head | {"choices": [], "usage": usage_object(job.usage)})
        yield DONE

    def refusal(self, refusal: Refusal) -> dict[str, object]:
        """Return the body of a refusal."""
        return refusal.openai_body()


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return `usage` in the format of OpenAI's older APIs."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens_details": None,
    }


class _Part(Body):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | dict[str, Any] | None = None


class _Function(Body):
    name: str
    arguments: str | None = None


class _Call(Body):
    function: _Function


class _Message(Body):
    role: str
    content: str | list[str | _Part] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Request(Body):
    messages: list[_Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    min_tokens: int | None = 0
    ignore_eos: bool | None = False
    truncate_prompt_tokens: int | None = None
    stream: bool | None = False
    stream_options: Options | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = True
    continue_final_message: bool | None = False
    chat_template: str | None = None


def _head(job: Job, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{job.request_id}", "object": kind, "created": job.created_s, "model": job.model}


def _delta(index: int, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _content(template: ChatTemplate, message: _Message) -> str:
    content = message.content or ""
    texts = [content] if isinstance(content, str) else list(_part_texts(template, content))
    reasoning = message.reasoning or message.reasoning_content
    if reasoning:
        texts.insert(0, reasoning)
    calls = message.tool_calls or ()
    texts += [template.call(call.function.name, call.function.arguments or "{}") for call in calls]
    return "\n".join(texts)


def _part_texts(template: ChatTemplate, parts: Sequence[str | _Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
            continue
        match part.type:
            case "text" | "input_text" | "output_text" | "refusal" | "thinking":
                yield part.text or part.refusal or ""
            case "image_url" | "input_image":
                url = part.image_url
                template.image(str(url.get("url", "")) if isinstance(url, dict) else url or "")
            case "input_audio" | "audio_url":
                template.audio()
            case "video_url":
                template.video()
            case unknown:
                raise Refusal(f"Unknown part type: {unknown}")
