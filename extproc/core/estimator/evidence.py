"""What an estimator keeps about a request until the response comes, and which parts of the response are plausible.

A response may say anything: a counter may be broken, a server may cut the prompt or add turns to it, a proxy may
add up the usage of several requests. Whatever cannot belong to this request is not learned from.
"""

from math import exp, log
from typing import Final

import msgspec

from extproc.core.estimator.features import Features
from extproc.core.estimator.prefixes import Recalled
from extproc.core.estimator.protocol import Refused
from extproc.core.estimator.text import BLANK_RUN, RUN
from extproc.core.facts import CUT_TO_FIT, RequestFacts
from extproc.core.usage import Overflow, Usage

__all__ = ["MAX_BYTES_PER_TOKEN", "Evidence", "fewest_tokens"]

# No tokenizer in use makes fewer tokens of real text than one per 16 bytes.
MAX_BYTES_PER_TOKEN = 16.0
# For padding they do: Llama 3, o200k and Qwen have tokens of 64 to 128 spaces, dashes or stars.
MAX_RUN_BYTES_PER_TOKEN = 128.0
MAX_FACTOR = 1_000  # usage larger than this multiple of the estimate is not believed
# Some servers count the end of the text as a token.
OUTPUT_SLACK_TOKENS = 16
# A cut prompt fills the pool's context; some servers leave room for a few tokens.
ROOM_TOKENS = 8
# If a server calls built-in tools, usage adds up the output of all turns.
MAX_TURNS = 16
# A pool's largest budget may be set below its context, but not by so much.
MAX_CONTEXT_FACTOR = 4
MAX_OUTPUT_TOKENS = 1 << 20
# Between two estimates of one request that differ less, usage does not decide: an error may be as large.
DISTINCT: Final = log(2)


class Evidence(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What is needed to learn from a response, without any text.

    `refused` says why no usage will show what the text costs (None: one may). `tokens` is the estimate;
    `output_limit` is the limit that the client declared for each of `sequences` (None: no limit); `one_prompt` is
    False for a list of several prompts, whose usage is added up. `x` holds the prompt's features for the
    byte-class estimator, `media_tokens` the EMA's estimate of what is not text, `recalled` what is known of a
    conversation. `of_tenant` says that the category is a tenant. `source` identifies the sender (sources.py),
    `number` the estimate (output_lengths.py). `output_forced` says that the client kept the model from ending its
    output. `other_tokens` is the estimate if the server treats tools that must not be called differently than
    `tokens` and `x` assume (unused_tools.py), 0 if that is no question. `cut_to_fit` says that the client asked to
    cut a prompt that is too long.
    """

    refused: Refused | None
    tokens: float
    text_bytes: int
    output_limit: int | None
    sequences: int
    one_prompt: bool
    x: Features | None = None
    media_tokens: int = 0
    recalled: Recalled | None = None
    of_tenant: bool = False
    source: int = 0
    number: int = 0
    output_forced: bool = False
    other_tokens: float = 0.0
    cut_to_fit: bool = False

    def __eq__(self, other: object) -> bool:
        """Compare everything but arrays (their == is no single truth value) and the ids."""
        names = (name for name in self.__struct_fields__ if name not in {"x", "recalled", "source", "number"})
        return isinstance(other, Evidence) and all(getattr(self, name) == getattr(other, name) for name in names)

    def __hash__(self) -> int:
        """Hash two of the fields that are compared."""
        return hash((self.tokens, self.text_bytes))

    @classmethod
    def of(
        cls,
        facts: RequestFacts,
        tokens: float,
        *,
        x: Features | None = None,
        media_tokens: int = 0,
        recalled: Recalled | None = None,
        of_tenant: bool = False,
        source: int = 0,
        number: int = 0,
        other_tokens: float = 0.0,
    ) -> "Evidence":
        """Build the evidence of a request that was estimated at so many tokens."""
        refused = None
        if facts.exact_prompt_tokens is not None:
            refused = Refused.EXACT
        elif facts.truncate_prompt_tokens is not None and facts.truncate_prompt_tokens != CUT_TO_FIT:
            refused = Refused.TRUNCATED
        elif facts.unseen_history:
            refused = Refused.UNSEEN_HISTORY
        return cls(
            refused,
            tokens,
            len(facts.text),
            facts.max_output_tokens,
            facts.sequences,
            facts.longest_share == 1,
            x,
            media_tokens,
            recalled,
            of_tenant,
            source,
            number,
            facts.output_forced,
            other_tokens,
            facts.truncate_prompt_tokens == CUT_TO_FIT,
        )

    def accepts(self, usage: Usage, pool_tokens: int | None) -> bool:
        """Return whether a usage can belong to this request; `pool_tokens` is the pool's context, if known."""
        actual = usage.prompt_tokens
        if not 0 < actual <= MAX_FACTOR * (self.tokens if self.tokens > 1 else 1.0):
            return False
        is_whole = self.refused is None and not (self.other_tokens and self.shows_left_out(usage))
        if is_whole and actual < self.text_bytes / MAX_BYTES_PER_TOKEN:  # unless it is padding
            padding_bytes = 0.0 if self.x is None else float(self.x[BLANK_RUN] + self.x[RUN])
            if actual < fewest_tokens(self.text_bytes, padding_bytes):
                return False
        return usage.completion_tokens <= self._most_output_tokens(pool_tokens)

    def refusal(self, usage: Usage, pool_tokens: int | None) -> Refused | None:
        """Return why an accepted usage does not show what the text costs; None if it does.

        Servers cut prompts to their context without a word to the gateway, too: vLLM if the client asks for it,
        those of embeddings by a setting of their own. Then usage is the context, and below the estimate. vLLM up
        to 0.31 leaves the output limit free; so may clients that count tokens, and this counts only if they asked
        for a cut. Servers may also leave out tools that were counted, or show those that were not.
        """
        if self.refused is None and self.one_prompt and pool_tokens and usage.prompt_tokens < self.tokens:
            free = pool_tokens - usage.prompt_tokens
            reserved = self.output_limit or 0 if self.cut_to_fit else 0
            if 0 <= free <= ROOM_TOKENS or reserved <= free <= reserved + ROOM_TOKENS:
                return Refused.TRUNCATED
        left_out = self.shows_left_out(usage) if self.other_tokens else None
        if left_out is not None and left_out is not self.has_left_out:
            return Refused.TRUNCATED if left_out else Refused.TOOLS
        return self.refused

    @property
    def has_left_out(self) -> bool:
        """Whether the estimate is one without the tools that must not be called."""
        return self.other_tokens > self.tokens

    def shows_left_out(self, usage: Usage) -> bool | None:
        """Return whether usage shows that unused tools are left out of the prompt; None if it shows neither."""
        if self.refused is not None or not self.other_tokens:
            return None
        less, more = sorted((self.tokens, self.other_tokens))
        off_less, off_more = abs(log(usage.prompt_tokens / less)), abs(log(usage.prompt_tokens / more))
        if log(more / less) < DISTINCT or min(off_less, off_more) > DISTINCT:
            return None
        return off_less < off_more

    def shows_kept(self, overflow: Overflow) -> bool:
        """Return whether a refusal shows that the prompt has the tools that it was estimated without."""
        at_least = overflow.at_least_prompt_tokens
        return at_least is not None and self.has_left_out and at_least > self.tokens * exp(DISTINCT)

    def has_one_output(self, usage: Usage) -> bool:
        """Return whether completion tokens are those of one response rather than the sum of several."""
        limit = self.output_limit
        within = limit is None or usage.completion_tokens <= limit + OUTPUT_SLACK_TOKENS
        return self.sequences == 1 and self.one_prompt and within and not usage.several_turns

    def shows_length(self, usage: Usage) -> bool:
        """Return whether completion tokens are a length that the model chose, or that a limit cut."""
        return self.has_one_output(usage) and not self.output_forced

    def truncated_by_pool(self, usage: Usage, pool_tokens: int | None) -> bool:
        """Return whether the pool's context cut the response: it ended there and before the client's limit."""
        if pool_tokens is None or not (usage.cut_by_length and self.has_one_output(usage)):
            return False
        if self.output_limit is not None and usage.completion_tokens >= self.output_limit:
            return False
        # vLLM stops at the limit or one token before it, depending on the version.
        return pool_tokens - 1 <= usage.prompt_tokens + usage.completion_tokens <= pool_tokens

    def _most_output_tokens(self, pool_tokens: int | None) -> int:
        if self.output_limit is not None:
            most = MAX_TURNS * self.output_limit + OUTPUT_SLACK_TOKENS
        else:
            most = MAX_OUTPUT_TOKENS if pool_tokens is None else MAX_CONTEXT_FACTOR * pool_tokens
        return most * self.sequences


def fewest_tokens(text_bytes: int, padding_bytes: float) -> float:
    """Return the fewest tokens that a text can have if `padding_bytes` of it are padding."""
    padding = padding_bytes if padding_bytes < text_bytes else text_bytes
    return (text_bytes - padding) / MAX_BYTES_PER_TOKEN + padding / MAX_RUN_BYTES_PER_TOKEN
