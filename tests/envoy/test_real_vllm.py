"""The real Envoy and the router in front of two real vLLM servers, which `make vllm` installs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from tests.envoy.harness.gateway import Gateway
from tests.envoy.harness.polling import eventually
from tests.envoy.harness.router import RouterProcess
from tests.golden.vllm import VERSIONS, installed, served

SHORT_CONTEXT, LONG_CONTEXT = 1024, 8192
WORDS = "Requests that fit go to the short pool, all others to the long one. "
FITS, DOES_NOT = WORDS * 10, WORDS * 200  # about 150 and 3,000 tokens
# Too long for the short servers, but not for what the router is told of them: they have to refuse it.
WRONGLY_SHORT = [5] * 1200
SHORT: dict[str, object] = {"name": "short", "max_budget_tokens": 1500, "max_model_len": 2048}
LONG: dict[str, object] = {"name": "long", "max_budget_tokens": LONG_CONTEXT}


class Real(NamedTuple):
    """The gateway and the router in front of the two servers."""

    gateway: Gateway
    router: RouterProcess


@pytest.fixture(scope="module", params=VERSIONS)
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Run a vLLM with a short and one with a long context."""
    if not installed(request.param).exists():
        pytest.skip("`make vllm` installs vLLM: several gigabytes")
    with served(request.param, SHORT_CONTEXT) as short, served(request.param, LONG_CONTEXT) as long:
        yield short, long


@contextmanager
def started(mode: str, servers: tuple[str, str], folder: Path, **settings: object) -> Iterator[Real]:
    """Run the gateway and the router; fail at the end if any exception was raised in the router."""
    router = RouterProcess(folder, **settings)
    hosts = [url.removeprefix("http://") for url in servers]
    gateway = Gateway(mode, {"dualpool": router.address, "pool_short": hosts[0], "pool_long": hosts[1]}, folder)
    yield Real(gateway, router)
    gateway.terminate()
    assert 0 == router.metric("dualpool_exceptions_total"), router.log_tail()
    router.terminate()


@pytest.fixture(params=["streamed", "buffered", "full-duplex"])
def real(request: pytest.FixtureRequest, servers: tuple[str, str], tmp_path: Path) -> Iterator[Real]:
    """Run the gateway in each mode, with a router that is told twice the context of the short servers."""
    with started(request.param, servers, tmp_path, pools=[SHORT, LONG]) as real:
        yield real


def test_no_client_sees_a_failure(real: Real) -> None:
    """Requests of each API go to the pool that holds them, refusals are repaired, and every usage teaches."""
    client: Any = openai.OpenAI(base_url=f"{real.gateway.url}/v1", api_key="-", max_retries=0)
    claude: Any = anthropic.Anthropic(base_url=real.gateway.url, api_key="-", max_retries=0)
    for text in (FITS, DOES_NOT):
        said = [{"role": "user", "content": text}]
        chat = client.chat.completions.create(model="m", messages=said, max_tokens=4)
        assert 4 == chat.usage.completion_tokens
        streamed = client.chat.completions.create(
            model="m", messages=said, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
        assert chat.usage.prompt_tokens == list(streamed)[-1].usage.prompt_tokens
        assert client.completions.create(model="m", prompt=text, max_tokens=4).usage is not None
        assert client.responses.create(model="m", input=text, max_output_tokens=16).usage is not None
        message = claude.messages.create(model="m", messages=said, max_tokens=4)
        assert chat.usage.prompt_tokens == message.usage.input_tokens
    assert 0 == real.router.metric("dualpool_retried_total", pool="short")
    repaired = client.completions.create(model="m", prompt=WRONGLY_SHORT, max_tokens=4)
    assert repaired.usage is not None
    assert len(WRONGLY_SHORT) == repaired.usage.prompt_tokens
    eventually(lambda: real.router.metric("dualpool_streams_open") == 0, "all streams have ended")
    assert 1 == real.router.metric("dualpool_retried_total", pool="short")
    assert 6 == real.router.metric("dualpool_requests_total", reason="fits")
    assert 11 == real.router.metric("dualpool_estimate_ratio_count")


def test_its_models_and_load_are_read(servers: tuple[str, str], tmp_path: Path) -> None:
    """The servers' models, contexts and load are read: what the short one would refuse goes to the long one."""
    pools = [pool | {"endpoints": {"urls": [url]}} for pool, url in zip((SHORT, LONG), servers, strict=True)]
    with started("streamed", servers, tmp_path, pools=pools, spill={"enabled": True}) as real:
        metric = real.router.metric
        eventually(lambda: metric("dualpool_pool_endpoints_answered") == len(pools), "both servers answer")
        assert len(pools) == metric("dualpool_pool_models")
        client: Any = openai.OpenAI(base_url=f"{real.gateway.url}/v1", api_key="-", max_retries=0)
        client.completions.create(model="m", prompt=WRONGLY_SHORT, max_tokens=4)
        assert (0, 1) == (metric("dualpool_retried_total"), metric("dualpool_requests_total", pool="long"))
