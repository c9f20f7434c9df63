"""Other filters before and after the router's: per-route settings, decompressors, endpoint pickers."""

import gzip
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import SHORT_TEXT, chat
from tests.envoy.harness.gateway import Document, cluster, connection_manager, ext_proc, load, moved_to, route
from tests.envoy.harness.pools import MODEL, Pools
from tests.envoy.harness.raw import chat_body
from tests.envoy.harness.router import BRIEF, RouterProcess
from tests.traps.finding import names_in

JSON = {"content-type": "application/json"}
BODY = chat_body(MODEL, SHORT_TEXT, max_tokens=16)
KIND = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3"
EXT_PROC = "envoy.filters.http.ext_proc"
MUTATION = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3"


def insert(document: Document, filter_: Document, *, before: bool) -> None:
    """Insert a filter right before the router's, or right after it."""
    filters = connection_manager(document)["http_filters"]
    at = [each["name"] for each in filters].index(EXT_PROC)
    filters.insert(at if before else at + 1, deepcopy(filter_))


def name_the_route(document: Document, *, before: bool) -> None:
    """Add a filter whose per-route settings name, in a header to the pool, the route it acted for."""
    insert(document, {"name": "says", "typed_config": {"@type": f"{MUTATION}.HeaderMutation"}}, before=before)
    for name in ("short", "long"):
        header = {"header": {"key": "x-acted-for", "value": name}}
        mutations = {"request_mutations": [{"append": header}]}
        per_route = {"@type": f"{MUTATION}.HeaderMutationPerRoute", "mutations": mutations}
        route(document, name).setdefault("typed_per_filter_config", {})["says"] = per_route


@pytest.mark.parametrize(("before", "acted_for"), [(True, "long"), (False, "short")])
def test_a_filter_before_the_router_s_acts_for_the_route_that_a_request_arrives_on(
    build: Build,
    mode: str,
    before: bool,  # noqa: FBT001
    acted_for: str,
    router: RouterProcess,
) -> None:
    """A filter before the router's always uses the long route's per-route settings (rate limits, credentials)."""
    caller = build(mode, change=lambda document: name_the_route(document, before=before), router=router)
    assert "short" == chat(caller, SHORT_TEXT)["x-served-by"]
    ((_, received),) = caller.received()
    assert acted_for == received.headers["x-acted-for"]


POOL = "x-token-budget-pool"
LUA: Document = {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}
# Filters after the router's, and the pool that a short request then goes to.
CHANGING: dict[str, tuple[str, Document]] = {
    "remove": ("long", {"mutations": {"request_mutations": [{"remove": POOL}]}}),
    "overwrite": (
        "long",
        {
            "mutations": {
                "request_mutations": [
                    {
                        "append": {
                            "header": {"key": POOL, "value": "other"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    }
                ]
            }
        },
    ),
    "append": (
        "short",
        {"mutations": {"request_mutations": [{"append": {"header": {"key": POOL, "value": "other"}}}]}},
    ),
    "script": ("long", LUA | {"inline_code": f"function envoy_on_request(h) h:headers():remove('{POOL}') end"}),
    "late-script": (
        "short",
        LUA
        | {
            "inline_code": f"function envoy_on_request(h) h:headers():remove('{POOL}') end",
            "clear_route_cache": False,
        },
    ),
    "reader": ("short", LUA | {"inline_code": f"function envoy_on_request(h) h:headers():get('{POOL}') end"}),
}


@pytest.mark.parametrize("name", CHANGING)
def test_a_filter_behind_the_router_s_that_changes_the_pool_s_header(
    build: Build, router: RouterProcess, name: str
) -> None:
    """The route is selected again by the header as changed; the checker finds filters that break the decision."""
    pool, settings = CHANGING[name]
    kind: Document = {"@type": f"{MUTATION}.HeaderMutation"}
    changing = {"name": "changing", "typed_config": kind | settings}
    caller = build("streamed", change=lambda document: insert(document, changing, before=False), router=router)
    assert pool == chat(caller, SHORT_TEXT)["x-served-by"]
    document = load("streamed")
    insert(document, changing, before=False)
    assert ({"pool-header-changed"} if pool == "long" else set()) == names_in(document)


DECOMPRESSOR = {
    "name": "decompressor",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.decompressor.v3.Decompressor",
        "decompressor_library": {
            "name": "gzip",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip"
            },
        },
    },
}


def compressed(caller: Caller, path: str = "/v1/chat/completions") -> httpx.Response:
    """Send a short, compressed request."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return caller.http.post(path, content=gzip.compress(BODY), headers=headers)


@pytest.fixture
def own_pools() -> Iterator[Pools]:
    """Run two pools for one test, which may corrupt their connections."""
    pools = Pools()
    yield pools
    pools.stop()


def test_a_decompressor_after_the_router_s_filter(
    build: Build, mode: str, router: RouterProcess, own_pools: Pools
) -> None:
    """Except in buffered mode, the pool gets the end of a body twice and takes the second for another request.

    The ext_proc filter passes the end of the body to the decompressor, which adds trailers; then the filter passes
    these on as well, as if they had come with the request. This is Envoy's behaviour, not ours. The next request
    on the connection is refused, whoever sends it.
    """
    change = partial(insert, filter_=DECOMPRESSOR, before=False)
    caller = build(mode, change=change, pools=own_pools, router=router)
    statuses = (compressed(caller, "/v1/anything").status_code for _ in range(100))
    assert (mode != "buffered") == (400 in statuses)
    if mode == "buffered":
        response = compressed(caller)
        assert ("short", "1") == (response.headers["x-served-by"], response.headers["x-envoy-attempt-count"])
        assert sha256(BODY).hexdigest() == response.headers["x-body-sha256"]


def test_a_decompressor_without_the_router_s_filter(build: Build, router: RouterProcess, own_pools: Pools) -> None:
    """By itself a decompressor does no harm, so it belongs in a separate listener in front of the router's."""

    def change(document: Document) -> None:
        insert(document, DECOMPRESSOR, before=False)
        filters = connection_manager(document)["http_filters"]
        filters[:] = [each for each in filters if each["name"] != EXT_PROC]

    caller = build("streamed", change=change, pools=own_pools, router=router)
    assert {(200, sha256(BODY).hexdigest())} == {
        (response.status_code, response.headers["x-body-sha256"])
        for response in [compressed(caller) for _ in range(8)]
    }


# Effect of the trailers that a decompressor before the router's filter adds: pool, attempts, reason.
DECOMPRESSED_FIRST = {
    "streamed": ("long", "1", "deadline"),
    "buffered": ("short", "1", "fits"),
    "full-duplex": ("long", "2", "fits"),
}


def test_a_decompressor_before_the_router_s_filter(build: Build, mode: str) -> None:
    """Buffered mode works; streamed waits for its deadline; full duplex sends the short pool a doubled body.

    The short pool refuses the doubled body, and the retry on the long pool is correct. This is Envoy's behaviour,
    not ours.
    """
    exchange = BRIEF if mode == "streamed" else {}
    caller = build(mode, change=lambda document: insert(document, DECOMPRESSOR, before=True), exchange=exchange)
    response = compressed(caller)
    served = response.headers["x-served-by"], response.headers["x-envoy-attempt-count"]
    assert DECOMPRESSED_FIRST[mode] == (*served, caller.access_log()[0]["reason"])
    assert sha256(BODY).hexdigest() == response.headers["x-body-sha256"]
    doubled = {request.body_bytes for pool, request in caller.received() if pool == "short"} - {len(BODY)}
    assert ({2 * len(BODY)} if mode == "full-duplex" else set()) == doubled
    assert {404} == {compressed(caller, "/v1/anything").status_code for _ in range(8)}


@pytest.fixture
def picker(tmp_path: Path) -> Iterator[RouterProcess]:
    """Run a stand-in for an endpoint picker: in full duplex it returns every byte, and decides nothing."""
    folder = tmp_path / "picker"
    folder.mkdir()
    process = RouterProcess(folder, mode="off")
    yield process
    process.kill()


def with_picker(document: Document, address: str, name: str) -> None:
    """Add a second ext_proc filter after ours, as Istio does for InferencePools: routes name the service it asks.

    `name` is the name of the second filter; ours keeps its own.
    """
    clusters = document["static_resources"]["clusters"]
    clusters.append(deepcopy(cluster(document, "dualpool")) | {"name": "picker"})
    clusters[-1]["load_assignment"]["cluster_name"] = "picker"
    moved_to(document, "picker", address)
    service = {"envoy_grpc": {"cluster_name": "picker"}}
    settings = deepcopy(ext_proc(document)) | {"grpc_service": service, "failure_mode_allow": False}
    settings["processing_mode"] |= {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"}
    settings.pop("send_body_without_waiting_for_header_response", None)
    insert(document, {"name": name, "typed_config": settings}, before=False)
    for each in ("short", "long"):
        overrides = {"@type": f"{KIND}.ExtProcPerRoute", "overrides": {"grpc_service": service}}
        route(document, each).setdefault("typed_per_filter_config", {})[name] = overrides


def test_our_filter_before_an_endpoint_picker_s(
    build: Build, mode: str, router: RouterProcess, picker: RouterProcess
) -> None:
    """If the filters have different names, ours routes requests, and bodies pass both filters complete."""
    caller = build(mode, change=lambda d: with_picker(d, picker.address, "picker"), router=router)
    sent = [BODY, chat_body(MODEL, "word " * 40_000, max_tokens=16), chat_body(MODEL, "word " * 400_000)]
    responses = [caller.http.post("/v1/chat/completions", content=body, headers=JSON) for body in sent]
    assert ["short", "long", "long"] == [each.headers["x-served-by"] for each in responses]
    hashes = [sha256(body).hexdigest() for body in sent]
    assert hashes == [each.headers["x-body-sha256"] for each in responses]
    assert 3 == picker.metric("dualpool_streams_total")


def test_our_filter_is_not_asked_by_the_picker_s_name(
    build: Build, router: RouterProcess, picker: RouterProcess
) -> None:
    """If both filters share a name, the routes' overrides for the picker apply to ours, which asks the picker."""
    caller = build("streamed", change=lambda d: with_picker(d, picker.address, EXT_PROC), router=router)
    assert "long" == chat(caller, SHORT_TEXT)["x-served-by"]
    assert [None] == [entry["pool"] for entry in caller.access_log()]
    assert 2 == picker.metric("dualpool_streams_total")
