"""With every file of `envoy/`, pools get the bytes that clients sent, and clients those that pools sent."""

import gzip
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.envoy.harness.gateway import FILES, Document, Gateway, cluster, load
from tests.envoy.harness.pools import MODEL
from tests.envoy.harness.raw import RawClient, chat_body
from tests.envoy.harness.replaying import ReplayingPool
from tests.envoy.harness.router import RouterProcess

NAMES: Final = sorted(
    str(path.relative_to(FILES).with_suffix("")) for path in FILES.rglob("*.yaml") if path.name != "dualpool.yaml"
)
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "streamed-access-log": {"learning": {"source": "access_log"}},
    "two-models/envoy": {
        "pools": [
            {"name": "a-short", "max_budget_tokens": 2048, "models": [MODEL]},
            {"name": "b-short", "max_budget_tokens": 2048, "models": ["another"]},
            {"name": "b-long", "max_budget_tokens": 65536, "models": ["another"]},
            {"name": "a-long", "max_budget_tokens": 65536, "models": [MODEL]},
        ]
    },
}
# Bytes that would change if they were decoded and encoded again: escapes and their characters side by side, white
# space, a key that occurs twice, a number that no float holds, events that end in several ways.
SHORT: Final = (
    b'\n {"max_tokens" : 16,"seed":1, "seed":2,\t"messages":[{"role":"user","content":"\\u00e9\xc3\xa9 \\/"}],'
)
SHORT_BODY: Final = SHORT + b'"temperature":0.10000000000000000555,"model":"%b"}\r\n' % MODEL.encode()
USAGE: Final = b'"usage": {"prompt_tokens":9, "completion_tokens":2,"total_tokens":11}'
JSON: Final = (
    b'{"object":"chat.completion","choices":[ {"index":0,"finish_reason":"stop"}],"x":"\xf0\x9f\x99\x82",%b}'
    % USAGE
)
EVENTS: Final = (
    b': hello\r\ndata: {"choices":[{"delta":{"content":"\xf0\x9f\x99\x82"}}]}\n\ndata:{%b}\r\rdata: [DONE]' % USAGE
)
REPLIES: Final = {
    "json": ({"content-type": "application/json"}, JSON),
    "events": ({"content-type": "text/event-stream; charset=utf-8"}, EVENTS),
    "gzip": ({"content-type": "application/json", "content-encoding": "gzip"}, gzip.compress(JSON)),
    "binary": ({"content-type": "text/event-stream"}, bytes(range(256)) * 300),
}


def _in_pieces(data: bytes) -> list[bytes]:
    """Cut small data into single bytes, so within each character, and large data into pieces of 1,000."""
    size = 1 if len(data) < 1_000 else 1_000
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.fixture
def replaying() -> Iterator[dict[str, ReplayingPool]]:
    """Run the pools `short` and `long`."""
    pools = {name: ReplayingPool() for name in ("short", "long")}
    yield pools
    for pool in pools.values():
        pool.stop()


@pytest.fixture
def serve(tmp_path: Path, replaying: dict[str, ReplayingPool]) -> Iterator[Callable[[str], int]]:
    """Return a function that starts an Envoy with a file and a router for it, and returns Envoy's port."""
    with ExitStack() as ending:

        def start(name: str) -> int:
            router = RouterProcess(tmp_path, **SETTINGS.get(name, {}))
            ending.callback(router.kill)

            def to_one_router(document: Document) -> None:
                endpoints = cluster(document, "dualpool")["load_assignment"]["endpoints"][0]["lb_endpoints"]
                del endpoints[1:]

            clusters = [each["name"] for each in load(name)["static_resources"]["clusters"]]
            addresses = {each: router.address for each in clusters if each.startswith("dualpool")}
            for each in clusters:
                if each.startswith("pool_"):
                    addresses[each] = replaying[each.rpartition("_")[2]].address
            gateway = Gateway(name, addresses, tmp_path, to_one_router)
            ending.callback(gateway.terminate)
            return gateway.port

        yield start


@pytest.mark.parametrize("name", NAMES)
def test_bytes_are_the_same_on_both_sides(
    serve: Callable[[str], int], replaying: dict[str, ReplayingPool], name: str
) -> None:
    """A small body, cut within characters, reaches the short pool unchanged, a large one the long pool.

    Their responses reach the client unchanged.
    """
    port = serve(name)
    large = chat_body(MODEL, "word " * 20_000, max_tokens=16)
    for headers, reply in REPLIES.values():
        for pool_name, body in (("short", SHORT_BODY), ("long", large)):
            pool = replaying[pool_name]
            pool.bodies.clear()
            pool.reply = (headers, _in_pieces(reply))
            with RawClient(port) as client:
                client.head("/v1/chat/completions", transfer_encoding="chunked")
                for piece in _in_pieces(body):
                    client.chunk(piece)
                client.end_chunks()
                response = client.response()
                assert (200, reply) == (response.status, response.read())
            assert [body] == pool.bodies
            assert headers.items() <= {key.lower(): value for key, value in response.getheaders()}.items()
