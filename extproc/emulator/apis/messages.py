"""Anthropic's `/v1/messages`, as vLLM serves it: with its own events and error object, and always with usage."""

from collections.abc import Iterator
from typing import Any

from extproc.emulator.apis.base import Body, check_counts, sse, validated
from extproc.emulator.refusals import Refusal
from extproc.emulator.template import ChatTemplate
from extproc.emulator.work import Event, Job, Work

__all__ = ["MessagesApi"]

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesApi:
    """Anthropic's messages; as in chat, tools are read but never called."""

    path = "/v1/messages"

    def read(self, data: object) -> Work:
        """Read a decoded body. Raises Refusal."""
        body = validated(_Request, data)
        template = ChatTemplate()
        template.tools([_as_function(tool) for tool in body.tools or []])
        if body.system:
            template.turn("system", _content(template, body.system))
        for message in body.messages:
            template.turn(message.role, _content(template, message.content))
        work = Work(
            prompts=(template.prompt(),),
            model=body.model,
            max_tokens=body.max_tokens,
            stream=bool(body.stream),
            include_usage=True,
        )
        return check_counts(work)

    def response(self, job: Job) -> dict[str, Any]:
        """Return the JSON response."""
        sequence = job.sequences[0]
        return _message(job, job.usage.completion_tokens) | {
            "content": [{"type": "text", "text": sequence.text}],
            "stop_reason": _STOP_REASONS[sequence.finish_reason],
        }

    def events(self, job: Job) -> Iterator[Event]:
        """Return the streamed response: input tokens come first, output tokens near the end."""
        block = {"type": "text", "text": ""}
        yield _event("message_start", message=_message(job, 0))
        yield _event("content_block_start", index=0, content_block=block)
        for step in job.steps():
            delta = {"type": "text_delta", "text": step.piece}
            yield _event("content_block_delta", decodes=step.first, index=0, delta=delta)
        yield _event("content_block_stop", index=0)
        reason = _STOP_REASONS[job.sequences[0].finish_reason]
        usage = {"input_tokens": job.usage.prompt_tokens, "output_tokens": job.usage.completion_tokens}
        yield _event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)
        yield _event("message_stop")

    def refusal(self, refusal: Refusal) -> dict[str, object]:
        """Return the body of a refusal."""
        return refusal.anthropic_body()


class _Source(Body):
    url: str | None = None
    data: str | None = None


class _Block(Body):
    type: str
    text: str | None = None
    thinking: str | None = None
    source: _Source | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: "str | list[_Block] | None" = None


class _Message(Body):
    role: str
    content: str | list[_Block]


class _Tool(Body):
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class _Request(Body):
    model: str
    messages: list[_Message]
    max_tokens: int
    system: str | list[_Block] | None = None
    tools: list[_Tool] | None = None
    stream: bool | None = False


def _as_function(tool: _Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _content(template: ChatTemplate, content: str | list[_Block] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_block_text(template, block) for block in content)


def _block_text(template: ChatTemplate, block: _Block) -> str:
    match block.type:
        case "image":
            source = block.source or _Source()
            template.image(source.url or f"data:;base64,{source.data or ''}")
            return ""
        case "tool_use":
            return template.call(block.name or "", block.input or {})
        case "tool_result":
            return _content(template, block.content)
        case _:
            return block.text or block.thinking or ""


def _message(job: Job, output_tokens: int) -> dict[str, Any]:
    return {
        "id": f"msg_{job.request_id}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": job.model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": job.usage.prompt_tokens, "output_tokens": output_tokens},
    }


def _event(kind: str, *, decodes: bool = False, **fields: object) -> Event:
    return sse({"type": kind} | fields, event=kind, decodes=decodes)
