"""Cost of the parts of one exchange, called in the measuring process, without transport."""

import sys
import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from types import FrameType

from prometheus_client import CollectorRegistry

import extproc
from bench import messages
from bench.measuring import Plan, Table
from bench.stack import Stack
from extproc.access_log.entry import LogEntry, LoggedUsage
from extproc.access_log.payload import Payloads
from extproc.access_log.seal import Keys, Seal
from extproc.access_log.teacher import Teacher
from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.apis import read_request
from extproc.core.exchange.events import Close, Event
from extproc.core.exchange.machine import Exchange
from extproc.core.facts import Api, RequestHead, ResponseHead
from extproc.core.headers import HeaderNames
from extproc.core.usage import Usage
from extproc.telemetry.metrics import Metrics
from extproc.wire.decode import Decoder
from extproc.wire.encode import Encoder

__all__ = ["BARS", "Exchanges", "calls", "measure"]

BODY_BYTES = 2048
OUTPUT_TOKENS = 50
LARGE_BYTES = 64 << 10
BLOCK = 8
RELEASED, LEARNED, EVENT = "a released exchange", "a learned exchange", "one event of a streamed response"
RESPONSES_BEFORE = 300  # enough that the model is no longer new
NOTES = """\
CPU time of calls in a loop, with everything in the processor's caches: in the server, interleaved with the gRPC
library's work on each message, the same code takes about twice as long. A 2 KB chat request in two messages, its
1 KB JSON response in three, an event in one. The byte classes have their own bar of 60 us (bench/estimator.md)."""


CALLS_NOTES = """\
Counted with the interpreter's profiler: calls of the package's functions, and of comprehensions if the interpreter
implements them as calls. A released and a learned exchange as above; an event is one token of a streamed response.
In 0.1.0 they took 139, 323 and 21 calls."""
BARS = {RELEASED: 75, LEARNED: 215, EVENT: 8}
TOKEN_EVENT = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":" hi"},"finish_reason":null}]}\n\n'


class Exchanges:
    """The server's objects, with a model that has learned from responses."""

    def __init__(self, kind: str) -> None:
        endless = "{messages_per_s: 1000000000, burst_messages: 1000000000, usage_in_streams: asked}"
        configuration = parse(f"{{estimator: {{kind: {kind}}}, learning: {endless}}}")
        metrics = Metrics(CollectorRegistry(), max_models=50, max_categories=50)
        self.router = compose(configuration, metrics)
        self.decoder, self.encoder = Decoder(), Encoder(HeaderNames())
        self.body = messages.chat_body(BODY_BYTES)
        self.released = messages.request(
            messages.http2_pieces(messages.chat_body(BODY_BYTES, stream=True)),
        )
        asked = messages.request(messages.http2_pieces(self.body))
        self.learned = asked + messages.response(messages.chat_response())
        self.learned_large = asked + messages.response(messages.chat_response(LARGE_BYTES))
        for _ in range(RESPONSES_BEFORE):
            self.exchange(self.learned)

    def decode(self, stream: list[bytes]) -> list[Event]:
        """Decode a stream's messages."""
        return [self.decoder.first(stream[0])[1], *map(self.decoder.next, stream[1:])]

    def exchange(self, stream: list[bytes]) -> None:
        """Decode, handle and encode all messages of a stream."""
        exchange = self.opened(stream)
        exchange.end()

    def opened(self, stream: list[bytes]) -> Exchange:
        """Pass the first messages of a stream through an exchange and return it, still open."""
        modes, event = self.decoder.first(stream[0])
        exchange = Exchange(self.router, modes)
        self.take(exchange, event)
        for message in stream[1:]:
            self.take(exchange, self.decoder.next(message))
        return exchange

    def take(self, exchange: Exchange, event: Event) -> None:
        """Handle one event and encode the replies."""
        for reply in exchange.handle(event, 0.0):
            if type(reply) is not Close:
                self.encoder.encode(reply)

    def slice_of_a_stream(self) -> Callable[[], None]:
        """Return a call that passes one server-sent event through an exchange that reads its response."""
        body = messages.chat_body(BODY_BYTES, stream=True, include_usage=True)
        head, piece, *_ = messages.response(TOKEN_EVENT, {"content-type": "text/event-stream"})
        exchange = self.opened([*messages.request(messages.http2_pieces(body)), head])
        return lambda: self.take(exchange, self.decoder.next(piece))

    def of_the_log(self) -> dict[str, Callable[[], object]]:
        """Return the steps of learning from the access log, and all of them together."""
        decision = self.router.decide(Api.CHAT, RequestHead("POST", "/v1/chat/completions"), self.body)
        seal = Seal(Keys(bytes(32)), Payloads(parse("").pools, "byteclass"), inf)
        sealed, now_s = seal.seal(decision, 0.0), 0.0
        assert sealed is not None
        opened = seal.open(sealed, now_s)
        prompt_tokens = round(decision.estimate.prompt_tokens) if decision.estimate is not None else 0
        head, usage = ResponseHead(200, "", ""), Usage(prompt_tokens, OUTPUT_TOKENS)
        entry = LogEntry(sealed, 200, usage=LoggedUsage(prompt_tokens, OUTPUT_TOKENS, 0))
        teacher = Teacher(self.router.learner, seal, {})
        return {
            "seal a decision for the access log": partial(seal.seal, decision, now_s),
            "open it again": partial(seal.open, sealed, now_s),
            "learn from its usage": partial(self.router.learner.observe, opened, head, usage),
            "open, learn from and report eight log entries": partial(teacher.take, [entry] * BLOCK, now_s),
        }

    def counted(self) -> dict[str, Callable[[], object]]:
        """Return the operations whose function calls are counted."""
        return {
            RELEASED: partial(self.exchange, self.released),
            LEARNED: partial(self.exchange, self.learned),
            EVENT: self.slice_of_a_stream(),
        }


def measure(_stack: Stack, plan: Plan) -> list[Table]:
    """Time each part in every round."""
    ours = Exchanges("byteclass")
    ema = Exchanges("ema").router.placer.estimator
    facts = read_request(Api.CHAT, ours.body)
    head = RequestHead("POST", "/v1/chat/completions")
    parts: dict[str, Callable[[], object]] = {
        "decode the messages of a released exchange": partial(ours.decode, ours.released),
        "read the request's facts": partial(read_request, Api.CHAT, ours.body),
        "estimate, byte classes": partial(ours.router.placer.estimator.estimate, facts, ""),
        "estimate, the paper's EMA": partial(ema.estimate, facts, ""),
        "decide: facts, estimate, policy, metrics": partial(ours.router.decide, Api.CHAT, head, ours.body),
        **Exchanges("byteclass").of_the_log(),
        "a complete released exchange": partial(ours.exchange, ours.released),
        "a complete learned exchange": partial(ours.exchange, ours.learned),
        "the same with a response of 64 KB": partial(ours.exchange, ours.learned_large),
        EVENT: ours.slice_of_a_stream(),
    }
    times: dict[str, list[float]] = {part: [] for part in parts}
    for _ in range(plan.rounds):
        for part, call in parts.items():
            times[part].append(_us(call, plan.requests))
    rows = [(part, f"{min(each):.1f}", f"{median(each):.1f}") for part, each in times.items()]
    times_table = Table("Cost of our own code", NOTES, ("part", "us, least", "us, median"), rows)
    counts = [(part, str(calls(call)), str(BARS[part])) for part, call in ours.counted().items()]
    return [times_table, Table("Python calls of our own code", CALLS_NOTES, ("part", "calls", "bar"), counts)]


def calls(call: Callable[[], object]) -> int:
    """Return how many calls of our package's functions and comprehensions `call` makes."""
    ours, count = str(Path(extproc.__file__).parent), 0

    def on_event(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(ours)

    sys.setprofile(on_event)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


def _us(call: Callable[[], object], times: int) -> float:
    started_s = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - started_s) * 1e6 / times
