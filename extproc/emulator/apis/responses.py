"""`/v1/responses`: nothing is stored, so a `previous_response_id` is never found (vLLM's default, too)."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from extproc.emulator.apis.base import Body, check_counts, sse, validated
from extproc.emulator.refusals import Refusal
from extproc.emulator.template import ChatTemplate
from extproc.emulator.work import Event, Job, Work

__all__ = ["ResponsesApi"]


class ResponsesApi:
    """OpenAI's responses; as in chat, tools are read but never called."""

    path = "/v1/responses"

    def read(self, data: object) -> Work:
        """Read a decoded body. Raises Refusal."""
        body = validated(_Request, data)
        if body.previous_response_id:
            message = f"Response with id '{body.previous_response_id}' not found."
            raise Refusal(message, param="response_id", kind="invalid_request_error", status=404)
        template = ChatTemplate()
        template.tools(body.tools or [])
        if body.instructions:
            template.turn("system", body.instructions)
        for item in [_Item(role="user", content=body.input)] if isinstance(body.input, str) else body.input:
            template.turn(_role(item), _item_text(template, item))
        work = Work(
            prompts=(template.prompt(),),
            model=body.model,
            max_tokens=body.max_output_tokens,
            limit_param="max_output_tokens",
            stream=bool(body.stream),
            include_usage=True,
        )
        return check_counts(work)

    def response(self, job: Job) -> dict[str, Any]:
        """Return the JSON response."""
        return _response(job, finished=True)

    def events(self, job: Job) -> Iterator[Event]:
        """Return the streamed response; usage is in the last event, and there is no `[DONE]`."""
        number = count()

        def event(kind: str, *, decodes: bool = False, **fields: object) -> Event:
            return sse({"type": kind, "sequence_number": next(number)} | fields, event=kind, decodes=decodes)

        item, part = _message(job, finished=True), _part(job.sequences[0].text)
        at: dict[str, Any] = {"item_id": item["id"], "output_index": 0}
        yield event("response.created", response=_response(job, finished=False))
        yield event("response.in_progress", response=_response(job, finished=False))
        yield event("response.output_item.added", output_index=0, item=_message(job, finished=False))
        yield event("response.content_part.added", **at, content_index=0, part=_part(""))
        for step in job.steps():
            delta = {"content_index": 0, "delta": step.piece, "logprobs": []}
            yield event("response.output_text.delta", decodes=step.first, **(at | delta))
        text = {"content_index": 0, "text": job.sequences[0].text, "logprobs": []}
        yield event("response.output_text.done", **(at | text))
        yield event("response.content_part.done", **at, content_index=0, part=part)
        yield event("response.output_item.done", output_index=0, item=item)
        yield event("response.completed", response=_response(job, finished=True))

    def refusal(self, refusal: Refusal) -> dict[str, object]:
        """Return the body of a refusal."""
        return refusal.openai_body()


class _Part(Body):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None


class _Item(Body):
    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None


class _Request(Body):
    input: str | list[_Item]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    stream: bool | None = False
    tools: list[dict[str, Any]] | None = None


def _role(item: _Item) -> str:
    match item.type:
        case "function_call_output":
            return "tool"
        case "function_call" | "reasoning":
            return "assistant"
        case _:
            return item.role or "user"


def _item_text(template: ChatTemplate, item: _Item) -> str:
    if item.type == "function_call":
        return template.call(item.name or "", item.arguments or "{}")
    content = item.output if item.type == "function_call_output" else item.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_part_text(template, part) for part in content)


def _part_text(template: ChatTemplate, part: _Part) -> str:
    if part.type == "input_image":
        template.image(part.image_url or "")
    elif part.type == "input_file":
        raise Refusal(f"Unknown part type: {part.type}")
    return part.text or part.refusal or ""


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": None}


def _message(job: Job, *, finished: bool) -> dict[str, Any]:
    return {
        "id": f"msg_{job.request_id}",
        "type": "message",
        "role": "assistant",
        "status": "completed" if finished else "in_progress",
        "content": [_part(job.sequences[0].text)] if finished else [],
    }


def _response(job: Job, *, finished: bool) -> dict[str, Any]:
    cut = job.sequences[0].finish_reason == "length"
    usage = {
        "input_tokens": job.usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": job.usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": job.usage.total_tokens,
    }
    status = ("incomplete" if cut else "completed") if finished else "in_progress"
    return {
        "id": f"resp_{job.request_id}",
        "object": "response",
        "created_at": job.created_s,
        "model": job.model,
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if finished and cut else None,
        "output": [_message(job, finished=True)] if finished else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage if finished else None,
    }
