"""vLLM's checks of whether a request fits the context, in vLLM's order.

The declared output is checked first. Then the number of characters is compared with the most that the remaining
tokens could stand for, which refuses megabytes of text without tokenising them. Then the tokens are counted, up to
the first one too many. Last, a prompt that leaves no room for a single output token is refused. Up to 0.31, a
prompt must leave room for all of its declared output. From 0.32 on, it only has to fit by itself, and the output
is limited to the room left (vllm#42474).
"""

from dataclasses import dataclass

from extproc.emulator.refusals import Refusal, too_long, too_many_characters
from extproc.emulator.settings import VllmVersion
from extproc.emulator.tokenizers import Tokenizer, count_tokens
from extproc.emulator.work import Prompt, Work

__all__ = ["Admitted", "measure"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """The tokens of all prompts together, and the tokens that the longest prompt leaves for its output."""

    prompt_tokens: int
    room_tokens: int


def measure(
    work: Work, tokenizer: Tokenizer, max_model_len: int, version: VllmVersion = VllmVersion.V0_32
) -> Admitted:
    """Count the tokens of a request's prompts; slow for long texts. Raises Refusal if a prompt does not fit."""
    output = work.max_tokens or 0
    if output > max_model_len:
        raise Refusal(
            f"{work.limit_param}={output} cannot be greater than max_model_len=max_total_tokens={max_model_len}. "
            f"Please request fewer output tokens. (parameter={work.limit_param}, value={output})",
            param=work.limit_param,
        )
    room = max_model_len - output
    if work.truncate_prompt_tokens is not None and work.truncate_prompt_tokens > room:
        raise Refusal(
            f"truncate_prompt_tokens={work.truncate_prompt_tokens} cannot be greater than max_total_tokens - "
            f"max_output_tokens = {room}. Please request a smaller truncation size. "
            f"(parameter=truncate_prompt_tokens, value={work.truncate_prompt_tokens})",
            param="truncate_prompt_tokens",
        )
    cut = work.truncate_prompt_tokens
    keep = room if cut == -1 else cut
    if version is VllmVersion.V0_32:
        room = max_model_len
    limits = _Limits(max_model_len, output, room, keep)
    counts = [_measure_prompt(prompt, tokenizer, limits) for prompt in work.prompts]
    longest = max(counts, default=0)
    if work.generates and longest == max_model_len:
        raise Refusal(
            f"The decoder prompt (length {longest}) plus the number of requested output tokens (at least 1) is "
            f"longer than the maximum model length of {max_model_len}. Make sure that `max_model_len` is no "
            "smaller than the number of text tokens (prompt + requested output tokens)."
        )
    return Admitted(sum(counts), max_model_len - longest)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits of one request, in tokens: a prompt may have `room`; it is truncated to `keep`, unless None."""

    max_model_len: int
    output: int
    room: int
    keep: int | None


def _measure_prompt(prompt: Prompt, tokenizer: Tokenizer, limits: _Limits) -> int:
    context, output, room = limits.max_model_len, limits.output, limits.room
    if limits.keep is None and prompt.characters > room * tokenizer.max_chars_per_token:
        raise too_many_characters(context, output, prompt.characters, room, tokenizer.max_chars_per_token)
    exact = prompt.token_ids is not None
    tokens = prompt.token_ids
    if tokens is None:
        tokens = count_tokens(tokenizer, prompt.texts, room - prompt.special_tokens) + prompt.special_tokens
    if limits.keep is not None:
        return min(tokens, limits.keep)
    if tokens > room:
        raise too_long(context, output, tokens if exact else room + 1, exact=exact)
    return tokens
