"""One router for two models with two pools each: envoy/two-models/ on the real Envoy."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from extproc.cli.main import main
from extproc.config.loading import load as configuration
from tests.envoy.harness.building import Build
from tests.envoy.harness.caller import Caller
from tests.envoy.harness.calls import LONG_TEXT, SHORT_TEXT
from tests.envoy.harness.gateway import FILES, Document, cluster, connection_manager, ext_proc, load, moved_to
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.pools import SHORT_MODEL_LEN, Pools, address
from tests.envoy.harness.router import SHORT_POOL_TOKENS

FILE = "two-models/envoy"
A, B = "model-a", "model-b"
TOO_LONG = "The quick brown fox jumps over the lazy dog. " * 6_000


class TwoModels(Pools):
    """Four pools, a short and a long one per model; the two of `Pools` are not used."""

    def __init__(self) -> None:
        super().__init__()
        self.a_short = self._emulator("a-short", SHORT_MODEL_LEN, A)
        self.a_long = self._emulator("a-long", 65_536, A)
        self.b_short = self._emulator("b-short", SHORT_MODEL_LEN, B)
        self.b_long = self._emulator("b-long", 32_768, B)
        self.all += [self.a_short, self.a_long, self.b_short, self.b_long]

    def clusters(self) -> dict[str, str]:
        """Return host:port by cluster name in the file."""
        names = ("a_short", "a_long", "b_short", "b_long")
        return {f"pool_{name}": address(getattr(self, name)) for name in names}


def settings(*, endpoints: TwoModels | None = None, models: bool = True) -> list[dict[str, Any]]:
    """Return the router's pool settings, with `models`, with the servers' endpoints, or with both."""
    pools: list[dict[str, Any]] = [
        {"name": "a-short", "max_budget_tokens": SHORT_POOL_TOKENS, "models": [A, f"{A}-*"]},
        {"name": "b-short", "max_budget_tokens": SHORT_POOL_TOKENS, "models": [B]},
        {"name": "b-long", "max_budget_tokens": 32_768, "models": [B]},
        {"name": "a-long", "max_budget_tokens": 65_536, "models": [A, f"{A}-*"]},
    ]
    for pool in pools:
        if endpoints is not None:
            pool["endpoints"] = {"urls": [getattr(endpoints, pool["name"].replace("-", "_")).url]}
        if not models:
            del pool["models"]
    return pools


@pytest.fixture(scope="module")
def two_models() -> Iterator[TwoModels]:
    """Run the four pools."""
    pools = TwoModels()
    yield pools
    pools.stop()


def ask(caller: Caller, model: str, text: str) -> str:
    """Send a request to a model; return the pool that served it."""
    raw = caller.openai.chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=16
    )
    assert raw.parse().choices[0].message.content
    return raw.headers["x-served-by"]


def asked(caller: Caller) -> list[str]:
    """Send a short and a long request to each model; return the pools that served them."""
    return [ask(caller, model, text) for model in (A, B) for text in (SHORT_TEXT, LONG_TEXT)]


def test_each_model_has_its_own_short_and_long_pool(build: Build, two_models: TwoModels) -> None:
    """With configured models, one router sends each request to the smallest fitting pool of its model."""
    caller = build(FILE, pools=two_models, configured=settings())
    assert ["a-short", "a-long", "b-short", "b-long"] == asked(caller)


def test_the_servers_model_lists_are_enough(build: Build, two_models: TwoModels) -> None:
    """With configured endpoints, the router asks the servers for their models and context lengths."""
    caller = build(FILE, pools=two_models, configured=settings(endpoints=two_models, models=False))
    eventually(lambda: caller.stack.router.metric("dualpool_pool_models") == 4, "all pools are known")
    assert ["a-short", "a-long", "b-short", "b-long"] == asked(caller)
    # The short pools hold half of their configured limit; the router knows, so nothing is refused and repaired.
    assert "a-long" == ask(caller, A, SHORT_TEXT * 16)
    assert ["too_long"] == [entry["reason"] for entry in caller.access_log(5)][-1:]


def test_a_model_missing_in_a_pool_is_found_in_the_next(build: Build, two_models: TwoModels) -> None:
    """If the short pool's servers lack its configured model, their 404 is retried, and the client gets a 200."""

    def swapped(document: Document) -> None:
        moved_to(document, "pool_a_short", address(two_models.b_short))

    caller = build(FILE, pools=two_models, configured=settings(), change=swapped)
    assert "a-long" == ask(caller, A, SHORT_TEXT)
    (entry,) = caller.access_log(1)
    assert ("a_short", "fits", 2, 200) == tuple(entry[key] for key in ("route", "reason", "attempts", "status"))


def test_without_the_router_each_model_is_still_served(build: Build, two_models: TwoModels) -> None:
    """After the router is killed, the default route retries a 404 in the next pool, and so finds each model."""
    caller = build(FILE, pools=two_models, configured=settings())
    asked(caller)
    caller.stack.router.kill()
    assert ["a-long", "a-long", "b-long", "b-long"] == asked(caller)


@pytest.mark.parametrize(
    ("model", "text", "error"),
    [("nobody-s", SHORT_TEXT, openai.NotFoundError), (B, TOO_LONG, openai.BadRequestError)],
)
def test_a_request_that_no_pool_can_serve_is_refused(
    build: Build, two_models: TwoModels, model: str, text: str, error: type[Exception]
) -> None:
    """A model that no pool serves is a 404, and a request too long for its model is a 400."""
    caller = build(FILE, pools=two_models, configured=settings())
    with pytest.raises(error):
        ask(caller, model, text)
    reason = "unknown_model" if model != B else "too_long"
    assert 1 == caller.stack.router.metric("dualpool_requests_total", reason=reason)


def test_the_file_differs_from_buffered_only_in_its_pools() -> None:
    """Limits, headers and the filter are the same as in buffered.yaml."""
    ours, buffered = load(FILE), load("buffered")
    assert ext_proc(buffered) == ext_proc(ours)
    assert cluster(buffered, "dualpool") == cluster(ours, "dualpool")
    for key, value in connection_manager(buffered).items():
        if key not in ("route_config", "http_filters", "access_log"):
            assert value == connection_manager(ours)[key]


def test_each_pool_of_the_router_s_file_has_a_route() -> None:
    """Each pool of the router's file except the last has a route that matches its name in the header."""
    names = [pool.name for pool in configuration(FILES / "two-models/dualpool.yaml").pools]
    routes = connection_manager(load(FILE))["route_config"]["virtual_hosts"][0]["routes"]
    values = [
        header["string_match"]["exact"]
        for route in routes
        for header in route["match"].get("headers", [])
        if header["name"] == "x-token-budget-pool"
    ]
    assert sorted(names[:-1]) == sorted(values)


def test_the_file_has_no_trap(capsys: pytest.CaptureFixture[str]) -> None:
    """The checker knows from the router's file that the long pool of B is the largest of its model."""
    folder = FILES / "two-models"
    code = main(["check", "envoy", "--config", str(folder / "dualpool.yaml"), str(folder / "envoy.yaml")])
    assert code == 0, capsys.readouterr().out
