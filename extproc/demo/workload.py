"""The demo's traffic: requests of many kinds, identical in every run of the same length.

The first request is a text of a kind that the router has not seen yet, just too long for the short pool. At 4
bytes per token it would seem to fit, so a router that ignored its own uncertainty would misroute it. The other
kinds have the shares in _SHARES, and the rest is plain chat.

Two more kinds consist of one request each. One is too large for any pool and must be refused. The other makes the
short pool answer 503, so that every run shows a repair: the router misroutes hardly any of this traffic.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from extproc.core.errors import ConfigurationError
from extproc.demo import texts
from extproc.emulator.faults import FAULT_HEADER

__all__ = ["MODEL", "Ask", "Endpoint", "workload"]

MODEL = "demo-model"
FEWEST_REQUESTS = 40
_SEED = 20260409  # the date of the paper


class Endpoint(StrEnum):
    """The API that a request goes to."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `arguments` for the openai client, and the `output_tokens` that it declares (None: none).

    `kind` is its row in the table. `no_pool_holds_it`: every pool has to refuse it. `headers` are sent in addition
    to the client's own.
    """

    number: int
    kind: str
    endpoint: Endpoint
    arguments: dict[str, Any]
    output_tokens: int | None
    no_pool_holds_it: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def stream(self) -> bool:
        """Whether the response is streamed."""
        return bool(self.arguments.get("stream"))


def workload(requests: int, long_pool_tokens: int) -> list[Ask]:
    """Return the traffic, shuffled: every kind by its share, and the three requests of which there is only one.

    Raises ConfigurationError for fewer than FEWEST_REQUESTS, too few to show all kinds.
    """
    if requests < FEWEST_REQUESTS:
        raise ConfigurationError(
            f"requests: {requests} are too few; at least {FEWEST_REQUESTS} are needed to show all kinds"
        )
    random = Random(_SEED)  # noqa: S311  (a run must be repeatable)
    makers = [maker for maker, share in _SHARES for _ in range(max(1, round(requests * share / 100)))]
    # The rest is plain chat, except for the three requests of which there is only one.
    makers += [_chat] * (requests - 3 - len(makers))
    random.shuffle(makers)
    asks = [_cold_start(0, random)] + [make(number, random) for number, make in enumerate(makers, 1)]
    asks.insert(requests // 3, _short_pool_fails(requests - 2, random))
    asks.insert(requests // 2, _too_large(requests - 1, random, long_pool_tokens))
    return asks


def _chat(number: int, random: Random) -> Ask:
    question = texts.prose(random, "english", random.randrange(60, 900))
    turns = [{"role": "system", "content": "Answer in the user's language, briefly."}]
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        turns += [
            {"role": "user", "content": texts.prose(random, "english", 200)},
            {"role": "assistant", "content": texts.prose(random, "english", 400)},
        ]
    limit = random.choice((None, 128, 256, 512))
    return _ask(number, "chat", [*turns, {"role": "user", "content": question}], limit)


def _languages(number: int, random: Random) -> Ask:
    text = texts.prose(random, random.choice(texts.LANGUAGES), random.choice((80, 300, 900, 2500)))
    return _ask(number, "languages", _user(text), random.choice((None, 200, 400)))


def _code(number: int, random: Random) -> Ask:
    source = texts.source_code(random, random.randrange(800, 9000))
    sequences = random.choice((1, 1, 1, 2))
    return _ask(number, "code", _user(f"Review this module:\n\n{source}"), 512, n=sequences)


def _data(number: int, random: Random) -> Ask:
    data = random.choice((texts.json_records, texts.log_lines))(random, random.randrange(10, 90))
    return _ask(number, "JSON and logs", _user(f"Summarise these records.\n{data}"), 300)


def _streaming(number: int, random: Random) -> Ask:
    language = random.choice(("english", "english", *texts.LANGUAGES))
    text = texts.prose(random, language, random.randrange(100, 1500))
    options = random.choice(({"include_usage": True}, {"include_usage": True}, None))
    extra: dict[str, Any] = {"stream": True} | ({"stream_options": options} if options else {})
    return _ask(number, "streaming", _user(text), 200, **extra)


def _tools(number: int, random: Random) -> Ask:
    text = texts.prose(random, "english", random.randrange(80, 400))
    tools = [_tool(random) for _ in range(random.randrange(1, 8))]
    return _ask(number, "tools", _user(text), 256, tools=tools)


def _images(number: int, random: Random) -> Ask:
    size = random.choice(((224, 224), (640, 480), (1024, 768)))
    parts = [
        {"type": "text", "text": texts.prose(random, "english", 120)},
        {"type": "image_url", "image_url": {"url": texts.picture(random, *size)}},
    ]
    return _ask(number, "images", [{"role": "user", "content": parts}], 300)


def _plain(number: int, random: Random) -> Ask:
    ids = [random.randrange(100_000) for _ in range(random.randrange(20, 3000))]
    prompt = random.choice((ids, texts.manual(random, 700), [texts.manual(random, 300) for _ in range(3)]))
    arguments = {"model": MODEL, "prompt": prompt, "max_tokens": 64}
    return Ask(number, "completions", Endpoint.COMPLETIONS, arguments, 64)


def _embeddings(number: int, random: Random) -> Ask:
    language = random.choice(("english", *texts.LANGUAGES))
    inputs = [texts.prose(random, language, 200) for _ in range(random.randrange(1, 9))]
    return Ask(number, "embeddings", Endpoint.EMBEDDINGS, {"model": MODEL, "input": inputs}, 0)


def _responses(number: int, random: Random) -> Ask:
    arguments = {
        "model": MODEL,
        "instructions": "Be brief.",
        "input": texts.manual(random, random.randrange(200, 3000)),
        "max_output_tokens": 200,
        "stream": random.choice((True, False)),
    }
    return Ask(number, "responses", Endpoint.RESPONSES, arguments, 200)


def _long_documents(number: int, random: Random) -> Ask:
    characters = random.randrange(40_000, 190_000)
    make = random.choice((texts.manual, texts.source_code))
    return _ask(number, "long texts", _user(make(random, characters)), 800)


def _near_the_limit(number: int, random: Random) -> Ask:
    language = random.choice(("english", "russian", "chinese", "hindi", "arabic"))
    # In characters; chosen for each language so that the budgets lie on both sides of the short pool's limit.
    characters = {"english": 29_000, "russian": 20_000, "chinese": 10_500, "hindi": 7_600, "arabic": 16_000}[
        language
    ]
    text = texts.prose(random, language, int(characters * random.uniform(0.75, 1.15)))
    return _ask(number, "near the limit", _user(text), 600)


def _cold_start(number: int, random: Random) -> Ask:
    # About 8,600 tokens at 2.8 bytes per token, as Qwen's vocabulary has for Hindi; 5,900 at 4 bytes per token.
    return _ask(number, "cold start", _user(texts.prose(random, "hindi", 9_100)), 600)


def _too_large(number: int, random: Random, long_pool_tokens: int) -> Ask:
    # Too long even at 12 bytes per token, which no text reaches; at the usual 4 it is three times the pool's size.
    text = texts.manual(random, 12 * long_pool_tokens)
    return _ask(number, "too large", _user(text), 100, no_pool_holds_it=True)


def _short_pool_fails(number: int, random: Random) -> Ask:
    # Only the short pool acts on the header; see stack.py.
    arguments = {"model": MODEL, "messages": _user(texts.prose(random, "english", 300)), "max_tokens": 100}
    return Ask(number, "short pool fails", Endpoint.CHAT, arguments, 100, headers={FAULT_HEADER: "status=503"})


_SHARES: tuple[tuple[Callable[[int, Random], Ask], float], ...] = (
    (_languages, 18),
    (_code, 12),
    (_data, 10),
    (_streaming, 11),
    (_tools, 6),
    (_images, 3),
    (_plain, 3),
    (_embeddings, 2),
    (_responses, 3),
    (_long_documents, 5),
    (_near_the_limit, 4),
)


def _user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _ask(
    number: int,
    kind: str,
    messages: list[dict[str, Any]],
    limit: int | None,
    *,
    no_pool_holds_it: bool = False,
    **more: Any,  # noqa: ANN401  (the client's own arguments)
) -> Ask:
    arguments = {"model": MODEL, "messages": messages} | more
    if limit is not None:
        arguments["max_tokens"] = limit
    return Ask(
        number,
        kind,
        Endpoint.CHAT,
        arguments,
        limit,
        no_pool_holds_it=no_pool_holds_it,
    )


def _tool(random: Random) -> dict[str, Any]:
    name = random.choice(("search_orders", "book_room", "read_sensor", "send_invoice", "list_files", "plan_route"))
    fields = random.sample(("customer", "from_date", "to_date", "limit", "region", "priority", "note"), 4)
    properties = {field: {"type": "string", "description": texts.prose(random, "english", 40)} for field in fields}
    parameters = {"type": "object", "properties": properties, "required": fields[:2]}
    description = texts.prose(random, "english", 80)
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}
