"""vLLM's checks of whether a request fits the context, in vLLM's order.

The declared output is checked first. Then the number of characters is compared with the most that the remaining
tokens could stand for, which refuses megabytes of text without tokenising them. Then the tokens are counted, up to
the first one too many. Last, a prompt is refused that is empty, or that leaves no room for a single output token,
or for as many as `min_tokens` requires. Up to 0.31, a prompt must leave room for all of its declared output. From
0.32 on, it only has to fit by itself, and the output is limited to the room left (vllm#42474). The responses of
both, in tests/golden/, are the measure.
"""

from dataclasses import dataclass

from extproc.emulator.refusals import (
    above_context,
    bad_parameter,
    cut_too_late,
    empty_prompt,
    no_such_output,
    too_long,
    too_many_characters,
)
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
        raise above_context(work.limit_param, output, max_model_len)
    shortens = version is VllmVersion.V0_32
    limits = _Limits(max_model_len, None if shortens else output, _kept(work, max_model_len, shortens=shortens))
    counts = [_measure_prompt(prompt, tokenizer, limits) for prompt in work.prompts]
    longest = max(counts, default=0)
    admitted = Admitted(sum(counts), max_model_len - longest)
    if work.generates:
        _check_output(work, admitted.room_tokens)
        if 0 in counts:
            raise empty_prompt()
    return admitted


def _check_output(work: Work, room: int) -> None:
    """Raise Refusal if the room after the longest prompt does not allow an output, or none as long as required."""
    if room == 0:
        raise bad_parameter("max_tokens", 0, "must be at least 1")
    most = room if work.max_tokens is None else min(work.max_tokens, room)
    if work.min_tokens < 0:
        raise no_such_output("greater than or equal to 0", work.min_tokens)
    if work.min_tokens > most:
        raise no_such_output(f"less than or equal to max_tokens={most}", work.min_tokens)


@dataclass(frozen=True, slots=True)
class _Limits:
    """Limits of one request, in tokens: a prompt is truncated to `keep`, unless None.

    `output` is the declared output that has to fit, too; None if the output is shortened instead.
    """

    max_model_len: int
    output: int | None
    keep: int | None

    @property
    def room(self) -> int:
        """The most tokens that a prompt may have."""
        return self.max_model_len - (self.output or 0)


def _kept(work: Work, max_model_len: int, *, shortens: bool) -> int | None:
    """Return how many tokens of a prompt are kept; None if it is not cut. Raises Refusal."""
    cut, output = work.truncate_prompt_tokens, work.max_tokens or 0
    if shortens:
        most, limit = max_model_len, f"max_model_len = {max_model_len}"
    else:
        most = max_model_len - output
        limit = f"max_model_len - {work.limit_param} = {most}"
    if cut is not None and cut > most:
        raise cut_too_late(cut, limit)
    if cut != -1:
        return cut
    return most - 1 if shortens and output else most  # a token is left for the output


def _measure_prompt(prompt: Prompt, tokenizer: Tokenizer, limits: _Limits) -> int:
    context, output, room = limits.max_model_len, limits.output, limits.room
    if limits.keep is None and prompt.characters > room * tokenizer.max_chars_per_token:
        characters, per_token = prompt.characters, tokenizer.max_chars_per_token
        raise too_many_characters(context, characters, room, per_token, output_tokens=output)
    tokens = prompt.token_ids
    if tokens is None:
        tokens = count_tokens(tokenizer, prompt.texts, room - prompt.special_tokens) + prompt.special_tokens
    if limits.keep is not None:
        return min(tokens, limits.keep)
    if tokens > room:
        # One token too many may be where counting stopped, even if the client counted them.
        counted = room + 1 if prompt.token_ids is None else tokens
        raise too_long(context, counted, exact=counted > room + 1, output_tokens=output)
    return tokens
