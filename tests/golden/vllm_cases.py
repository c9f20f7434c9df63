"""Requests whose responses by a real vLLM are recorded (vllm.py), for a model `m` with a context of 1,024 tokens.

They are what the router reads limits and prompts from, what the server makes of them where they do not fit, and
what it refuses for another reason, in each of its APIs.
"""

from typing import Any, Final

__all__ = ["CASES", "CONTEXT_TOKENS", "Case"]

Case = tuple[str, dict[str, Any] | str]  # the path, and the body (text: bytes that are not what JSON makes)

CONTEXT_TOKENS: Final = 1024
CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
SENTENCE: Final = "The router counts what a prompt holds, and no more. "
HALF: Final = SENTENCE * 55  # tokens: more than half of the context
LONG: Final = SENTENCE * 150  # more than the context
HUGE: Final = SENTENCE * 20_000  # so many characters that vLLM does not count their tokens
TOOL: Final = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def chat(text: str = "Hello there, how are you?", **more: object) -> Case:
    """Return a chat request of one message."""
    return CHAT, {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def said(messages: object, **more: object) -> Case:
    """Return a chat request with these messages."""
    return CHAT, {"model": "m", "messages": messages, "max_tokens": 5, **more}


def completion(prompt: object = "Hello there", **more: object) -> Case:
    """Return a completion request."""
    return COMPLETIONS, {"model": "m", "prompt": prompt, **more}


def response(given: object = "Hello there", **more: object) -> Case:
    """Return a request of the Responses API."""
    return RESPONSES, {"model": "m", "input": given, **more}


def message(text: str = "Hello there", **more: object) -> Case:
    """Return a request of Anthropic's API."""
    return MESSAGES, {"model": "m", "messages": [{"role": "user", "content": text}], **more}


CASES: Final[dict[str, Case]] = {
    "chat": chat(max_tokens=5),
    "chat, max_completion_tokens": chat(max_completion_tokens=5),
    "chat, both limits": chat(max_tokens=50, max_completion_tokens=5),
    "chat, no limit": chat(),
    "chat, limit null": chat(max_tokens=None, max_completion_tokens=None),
    "chat, limit as text": chat(max_tokens="5"),
    "chat, limit with a point": chat(max_tokens=5.0),
    "chat, limit true": chat(max_tokens=True),
    "chat, limit 0": chat(max_tokens=0),
    "chat, limit negative": chat(max_tokens=-1),
    "chat, limit twice": (
        CHAT,
        '{"model": "m", "max_tokens": 50, "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]}',
    ),
    "chat, limit above the context": chat(max_tokens=2000),
    "chat, prompt and limit above the context": chat(HALF, max_tokens=900),
    "chat, prompt above the context": chat(LONG, max_tokens=5),
    "chat, prompt above the context, no limit": chat(LONG),
    "chat, prompt of too many characters": chat(HUGE, max_tokens=5),
    "chat, prompt above the context, streamed": chat(LONG, max_tokens=5, stream=True),
    "chat, prompt and limit above the context, streamed": chat(
        HALF, max_tokens=900, stream=True, stream_options={"include_usage": True}
    ),
    "chat, three choices": chat(max_tokens=5, n=3),
    "chat, no choices": chat(max_tokens=5, n=0),
    "chat, beams": chat(max_tokens=5, n=2, use_beam_search=True, temperature=0),
    "chat, min_tokens": chat(max_tokens=30, min_tokens=20),
    "chat, ignore_eos": chat(max_tokens=30, ignore_eos=True),
    "chat, cut to 100": chat(LONG, max_tokens=5, truncate_prompt_tokens=100),
    "chat, cut to what fits": chat(LONG, max_tokens=5, truncate_prompt_tokens=-1),
    "chat, cut above the context": chat(LONG, max_tokens=5, truncate_prompt_tokens=5000),
    "chat, no generation prompt": chat(max_tokens=5, add_generation_prompt=False),
    "chat, last message continued": chat(max_tokens=5, add_generation_prompt=False, continue_final_message=True),
    "chat, template of its own": chat(max_tokens=5, chat_template="{{ messages }}"),
    "chat, content in parts": said([{"role": "user", "content": [{"type": "text", "text": "Hello"}] * 2}]),
    "chat, several turns": said(
        [{"role": role, "content": SENTENCE} for role in ("system", "user", "assistant", "user")]
    ),
    "chat, other scripts": said([{"role": "user", "content": "Съешь ещё этих мягких булок. 我能吞下玻璃。 👩‍🚀"}]),
    "chat, no messages": said([]),
    "chat, image to a model without eyes": said(
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    ),
    "chat, JSON": chat(max_tokens=5, response_format={"type": "json_object"}),
    "chat, tool calls": chat(max_tokens=5, tools=[TOOL]),
    "chat, no model": (CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}),
    "chat, another model": (CHAT, {"model": "other", "messages": [{"role": "user", "content": "x"}]}),
    "chat, streamed": chat(max_tokens=4, stream=True),
    "chat, streamed with usage": chat(max_tokens=4, stream=True, stream_options={"include_usage": True}),
    "chat, streamed with usage throughout": chat(
        max_tokens=4, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}
    ),
    "chat, not JSON": (CHAT, '{"model": "m",'),
    "completion": completion(max_tokens=5),
    "completion, no limit": completion(),
    "completion, token ids": completion([5, 6, 7], max_tokens=5),
    "completion, two prompts": completion(["a b c", "d e f g"], max_tokens=5),
    "completion, two prompts of ids": completion([[5, 6], [7, 8, 9]], max_tokens=5),
    "completion, echoed": completion(max_tokens=5, echo=True),
    "completion, echoed alone": completion(max_tokens=0, echo=True),
    "completion, two of three": completion(max_tokens=5, n=2, best_of=3),
    "completion, ids above the context": completion([5] * 1200, max_tokens=5),
    "completion, ids that fill the context": completion([5] * 1024, max_tokens=1),
    "completion, ids that leave one": completion([5] * 1023, max_tokens=1),
    "completion, ids and limit above the context": completion([5] * 1000, max_tokens=100),
    "completion, prompt above the context": completion(LONG, max_tokens=5),
    "completion, limit above the context": completion(max_tokens=2000),
    "completion, nothing": completion("", max_tokens=5),
    "response": response(max_output_tokens=5),
    "response, no limit": response(),
    "response, instructions": response(max_output_tokens=5, instructions=SENTENCE),
    "response, messages": response([{"role": "user", "content": "Hi"}], max_output_tokens=4),
    "response, prompt above the context": response(LONG, max_output_tokens=5),
    "response, prompt and limit above the context": response(HALF, max_output_tokens=900),
    "response, streamed": response(max_output_tokens=4, stream=True),
    "message": message(max_tokens=5),
    "message, no limit": message(),
    "message, system": message(max_tokens=5, system=SENTENCE),
    "message, limit 0": message(max_tokens=0),
    "message, prompt above the context": message(LONG, max_tokens=5),
    "message, prompt and limit above the context": message(HALF, max_tokens=900),
    "message, streamed": message(max_tokens=4, stream=True),
}
