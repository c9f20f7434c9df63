"""Streams of requests, fixed before the estimators were measured on them.

*mixed*: one request in five is the next turn of one of 24 sessions, which end after they exceed 12,288 tokens. Of
the other prompts, 5 % are of odd kinds. Four tenants send 40, 30, 20 and 10 % of the requests; each has ten
ordinary kinds of text of its own, from which 70 % of its ordinary prompts are drawn, the others from all ordinary
kinds. Of the lengths in tokens, 60 % follow a real trace and 40 % are uniform on a logarithmic scale from 128 to
12,288, so that every size band and both thresholds see enough requests (each kind's usual bytes per token turn
lengths into bytes). A quarter of the prompts have a second kind of text in their second half.

*sessions*: only turns of sessions, from 24 sessions at a time, half of which are agents'.
*with reasoning*: *mixed*, but 35 % carry the reasoning of earlier turns, and 10 % are odd prompts.
*with media*: *mixed*, but 5 % have images and 1 % a video.
*first sight*: prompts of 2 KiB to 16 KiB, each of one kind.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from extproc.evaluation.chats import Chat, Session, Turn, shaped, with_image, with_reasoning, with_video
from extproc.evaluation.odd import ODD_KINDS
from extproc.evaluation.requests import Lengths, Request, make_request
from extproc.evaluation.texts import Texts, window
from extproc.evaluation.tokenizers import Tokenizer

__all__ = [
    "Material",
    "Source",
    "bytes_per_token",
    "first_sight",
    "mixed",
    "sessions",
    "with_media",
    "with_reasoning_in_history",
]

TRACE_SHARE = 0.6
EVEN_TOKENS = (128, 12_288)
SECOND_KIND_SHARE = 0.25
SESSION_SHARE = 0.2
ODD_SHARE = 0.05
SESSIONS = 24
TENANTS = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
TENANT_KINDS = 10
OWN_KIND_SHARE = 0.7
PROBE_BYTES = 16 * 1024
AGENT_KINDS = ("python", "json", "logs", "stack traces", "patches", "markdown", "prose", "yaml")


@dataclass(frozen=True, slots=True)
class Material:
    """The material of streams; `unseen` holds kinds of text that occur in no stream."""

    texts: Texts
    lengths: Lengths
    unseen: Texts = field(default_factory=dict)


def mixed(material: Material, tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Request]:
    """Yield requests of the mix *mixed*."""
    source = Source(material, tokenizer, np.random.default_rng(seed))
    for _ in range(count):
        yield source.request(ODD_SHARE)


def sessions(material: Material, tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Request]:
    """Yield requests of the mix *sessions*."""
    source = Source(material, tokenizer, np.random.default_rng(seed))
    for _ in range(count):
        yield source.next_turn(source.tenant())


def with_reasoning_in_history(
    material: Material, tokenizer: Tokenizer, count: int, seed: int
) -> Iterator[Request]:
    """Yield requests of the mix *with reasoning*; additions to *mixed* form the groups `reasoning` and `odd`."""
    source = Source(material, tokenizer, np.random.default_rng(seed))
    rng, texts = np.random.default_rng(seed + 1), material.texts
    for _ in range(count):
        drawn = rng.random()
        if drawn < 0.35:  # noqa: PLR2004  (the shares of the mix)
            kind, chat = source.chat(source.tenant(), 0.0)
            yield source.made(kind, with_reasoning(chat, texts, rng), "reasoning", source.tenant())
        elif drawn < 0.45:  # noqa: PLR2004
            kind, chat = source.chat(source.tenant(), 1.0)
            yield source.made(kind, chat, "odd", source.tenant())
        else:
            yield source.request(0.0)


def with_media(material: Material, tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Request]:
    """Yield requests of the mix *with media*; those with media form the group `media`."""
    source = Source(material, tokenizer, np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    for _ in range(count):
        drawn = rng.random()
        if drawn < 0.06:  # noqa: PLR2004  (the shares of the mix)
            kind, chat = source.chat(source.tenant(), 0.0)
            chat = with_video(chat, rng) if drawn < 0.01 else with_image(chat, rng)  # noqa: PLR2004
            yield source.made(kind, chat, "media", source.tenant())
        else:
            yield source.request(ODD_SHARE)


def first_sight(texts: Texts, kind: str, tokenizer: Tokenizer, count: int, seed: int) -> Iterator[Request]:
    """Yield prompts of one kind."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = int(np.exp(rng.uniform(np.log(2_048), np.log(16_384))))
        yield make_request(kind, Chat((Turn("user", window(texts[kind], size, rng)),)), tokenizer, 0, rng)


@dataclass(slots=True)
class Source:
    """Draws random requests; holds the sessions in progress."""

    material: Material
    tokenizer: Tokenizer
    rng: np.random.Generator
    _bytes_per_token: dict[str, float] = field(init=False)
    _kinds: Sequence[str] = field(init=False)
    _odd_kinds: Sequence[str] = field(init=False)
    _own_kinds: dict[str, Sequence[str]] = field(init=False)
    _sessions: list[Session] = field(init=False)

    def __post_init__(self) -> None:
        texts = self.material.texts
        self._bytes_per_token = {kind: bytes_per_token(text, self.tokenizer) for kind, text in texts.items()}
        self._kinds = sorted(set(texts) - ODD_KINDS)
        self._odd_kinds = sorted(set(texts) & ODD_KINDS) or self._kinds
        own = min(TENANT_KINDS, len(self._kinds))
        self._own_kinds = {tenant: self.rng.choice(self._kinds, own, replace=False).tolist() for tenant in TENANTS}
        self._sessions = [self._session() for _ in range(SESSIONS)]

    def tenant(self) -> str:
        """Return the tenant that sends the next request."""
        return str(self.rng.choice(list(TENANTS), p=list(TENANTS.values())))

    def request(self, odd_share: float) -> Request:
        """Return a request as in *mixed*, but with this share of odd prompts."""
        tenant = self.tenant()
        if self.rng.random() < SESSION_SHARE:
            return self.next_turn(tenant)
        kind, chat = self.chat(tenant, odd_share)
        return self.made(kind, chat, "", tenant)

    def chat(self, tenant: str, odd_share: float) -> tuple[str, Chat]:
        """Return a chat of a random shape, preceded by the kind of text that it begins with."""
        kind = self._kind(tenant, odd_share)
        parts = [kind, self._kind(tenant, 0.0)] if self.rng.random() < SECOND_KIND_SHARE else [kind]
        tokens = self._prompt_tokens()
        sizes = [max(16, round(tokens * self._bytes_per_token[part] / len(parts))) for part in parts]
        texts = self.material.texts
        cuts = (window(texts[part], size, self.rng) for part, size in zip(parts, sizes, strict=True))
        return kind, shaped("\n\n".join(cuts), texts, self.rng)

    def next_turn(self, tenant: str) -> Request:
        """Return the next turn of a random session, sent by this tenant."""
        number = int(self.rng.integers(SESSIONS))
        request = self.made("session", self._sessions[number].next(), "session", tenant)
        if request.tokens > EVEN_TOKENS[1]:
            self._sessions[number] = self._session()
        return request

    def made(self, kind: str, chat: Chat, group: str, tenant: str) -> Request:
        """Return a chat as a request, with a random output length from the trace."""
        lengths = self.material.lengths
        output_tokens = lengths[int(self.rng.integers(len(lengths)))][1]
        return make_request(kind, chat, self.tokenizer, output_tokens, self.rng, group=group, tenant=tenant)

    def _kind(self, tenant: str, odd_share: float) -> str:
        drawn = self.rng.random()
        if drawn < odd_share:
            return _one_of(self._odd_kinds, self.rng)
        own = self.rng.random() < OWN_KIND_SHARE
        return _one_of(self._own_kinds[tenant] if own else self._kinds, self.rng)

    def _prompt_tokens(self) -> float:
        if self.rng.random() < TRACE_SHARE:
            return float(_one_of_lengths(self.material.lengths, self.rng)[0])
        low, high = np.log(EVEN_TOKENS)
        return float(np.exp(self.rng.uniform(low, high)))

    def _session(self) -> Session:
        agent = bool(self.rng.random() < 0.5)  # noqa: PLR2004  (half of them)
        kinds = [kind for kind in AGENT_KINDS if kind in self._kinds] if agent else []
        return Session(self.material.texts, kinds or [_one_of(self._kinds, self.rng)], self.rng, agent)


def _one_of(kinds: Sequence[str], rng: np.random.Generator) -> str:
    return kinds[int(rng.integers(len(kinds)))]


def _one_of_lengths(lengths: Lengths, rng: np.random.Generator) -> tuple[int, int]:
    return lengths[int(rng.integers(len(lengths)))]


def bytes_per_token(text: bytes, tokenizer: Tokenizer) -> float:
    """Return the bytes per token of a text, measured on its beginning."""
    probe = text[:PROBE_BYTES].decode("utf-8", errors="ignore")
    return len(probe.encode()) / tokenizer.count(probe)
