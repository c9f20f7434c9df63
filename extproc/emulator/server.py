"""The HTTP side of the emulator: one aiohttp server, run in-process or from the command line.

Every API response has the pool's name in `x-served-by`. If the request's body was read, `x-body-sha256` has the
hash of its bytes as received; if the request was served, `x-prompt-tokens` has the true count, even if a fault
makes the reported usage wrong. Request bodies are never decompressed, as in vLLM. Any path prefix before `/v1` is
accepted, as behind a proxy that does not strip it.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar
from uuid import uuid4

from aiohttp import web

from extproc.emulator.admission import Admitted, measure
from extproc.emulator.apis import APIS, Api
from extproc.emulator.faults import FAULT_HEADER, Fault, read_fault
from extproc.emulator.metrics import SchedulerMetrics
from extproc.emulator.refusals import Refusal, bad_request, not_found
from extproc.emulator.responding import Responder
from extproc.emulator.scheduler import Scheduler
from extproc.emulator.settings import EmulatorSettings
from extproc.emulator.tokenizers import load_tokenizer
from extproc.emulator.work import Job, Usage, Work
from extproc.emulator.writer import write_sequences

__all__ = ["Emulator", "ReceivedRequest"]

T = TypeVar("T")

MAX_BODY_BYTES = 512 * 1024 * 1024
RECEIVED_KEPT = 1000
# Larger bodies are hashed, decoded and counted in a thread, so that they do not block the event loop.
THREAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as it reached the pool, for tests to inspect; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body_bytes: int
    body_sha256: str


class Emulator:
    """One emulated pool. `start` returns its URL; `received` holds the latest requests."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.received: deque[ReceivedRequest] = deque(maxlen=RECEIVED_KEPT)
        self.url = ""
        self._tokenizer = load_tokenizer(settings.tokenizer)
        self._scheduler = Scheduler(settings, time.monotonic)
        self._metrics = SchedulerMetrics(self._scheduler)
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen, and return the URL. Raises OSError if the address cannot be bound."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for api in APIS:
            app.router.add_post(f"/{{prefix:.*}}{api.path[1:]}", _Endpoint(self, api).handle)
        app.router.add_get("/{prefix:.*}v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics_page)
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, handler_cancellation=True, shutdown_timeout=1
        )
        await self._runner.setup()
        host, port = self.settings.host_and_port()
        await web.TCPSite(self._runner, host, port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return self.url

    async def stop(self) -> None:
        """Close all connections and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fault_of(self, request: web.Request) -> Fault:
        """Return the fault that a request asks for. Raises Refusal."""
        value = request.headers.get(FAULT_HEADER, "")
        return read_fault(value) if value and self.settings.faults else Fault()

    def measure(self, work: Work) -> Admitted:
        """Count the tokens of a request's prompts. Raises Refusal."""
        if work.model is not None and work.model != self.settings.model:
            raise not_found(work.model)
        return measure(work, self._tokenizer, self.settings.max_model_len, self.settings.vllm_version)

    async def perform(
        self, request: web.Request, api: Api, work: Work, responder: Responder
    ) -> web.StreamResponse:
        """Run a request through the scheduler and answer it. Raises Refusal."""
        characters = sum(prompt.characters for prompt in work.prompts)
        if characters > THREAD_BYTES:
            admitted = await asyncio.to_thread(self.measure, work)
        else:
            admitted = self.measure(work)
        responder.headers["x-prompt-tokens"] = str(admitted.prompt_tokens)
        sequences = len(work.prompts) * work.n
        async with self._scheduler.admit(sequences, admitted.prompt_tokens) as running:
            job = self._job(work, admitted, responder.fault)
            if work.stream:
                return await responder.stream(request, api.events(job), running)
            await running.decode(max((len(each.pieces) for each in job.sequences), default=0))
            return await responder.json(request, api.response(job))

    def _job(self, work: Work, admitted: Admitted, fault: Fault) -> Job:
        median = self.settings.median_completion_tokens
        sequences = write_sequences(work, admitted.room_tokens, median, self._tokenizer) if work.generates else ()
        usage = Usage(admitted.prompt_tokens, sum(len(each.pieces) for each in sequences))
        return Job(
            work=work,
            model=self.settings.model,
            request_id=uuid4().hex,
            created_s=int(time.time()),
            sequences=sequences,
            usage=fault.reported(usage),
        )

    async def _models(self, _: web.Request) -> web.Response:
        card = {
            "id": self.settings.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": self.settings.model,
            "parent": None,
            "max_model_len": self.settings.max_model_len,
        }
        headers = {"x-served-by": self.settings.name}
        return web.json_response({"object": "list", "data": [card]}, headers=headers)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"content-type": "text/plain; version=0.0.4"})


class _Endpoint:
    """The handler of one API: reads requests, and answers or refuses them."""

    def __init__(self, emulator: Emulator, api: Api) -> None:
        self._emulator, self._api = emulator, api

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        settings = self._emulator.settings
        responder = Responder({"x-served-by": settings.name}, settings.compression)
        try:
            responder.fault = self._emulator.fault_of(request)
            if early := responder.fault.early_refusal():
                responder.headers["connection"] = "close"
                raise early
            body = await request.read()
            digest = await _maybe_in_thread(len(body), lambda: sha256(body).hexdigest())
            responder.headers["x-body-sha256"] = digest
            self._note(request, len(body), digest)
            await responder.apply_early_fault(request)
            work = await _maybe_in_thread(len(body), lambda: self._api.read(_decoded(request, body)))
            return await self._emulator.perform(request, self._api, work, responder)
        except Refusal as refusal:
            headers = responder.headers | ({"location": "/elsewhere"} if 300 <= refusal.status < 400 else {})  # noqa: PLR2004
            return web.json_response(self._api.refusal(refusal), status=refusal.status, headers=headers)

    def _note(self, request: web.Request, body_bytes: int, digest: str) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self._emulator.received.append(ReceivedRequest(request.path_qs, headers, body_bytes, digest))


def _decoded(request: web.Request, body: bytes) -> object:
    """Decode a body as FastAPI does: with the json module, and only if it is application/json. Raises Refusal."""
    if request.content_type != "application/json":
        raise bad_request("Unsupported Media Type: Only 'application/json' is allowed")
    if not body:
        raise bad_request(
            "1 validation error(s):\n  {'type': 'missing', 'loc': ('body',), 'msg': 'Field required'}"
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"1 validation error(s):\n  {{'type': 'json_invalid', 'msg': {str(error)!r}}}") from None


async def _maybe_in_thread(size: int, work: Callable[[], T]) -> T:
    return work() if size <= THREAD_BYTES else await asyncio.to_thread(work)
