"""The real Envoy and the router in front of two real vLLM servers, which `make vllm` installs."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
WRONGLY_SHORT = WORDS * 75


class Real(NamedTuple):
    """Two servers, and the gateway and the router in front of them."""

    gateway: Gateway
    router: RouterProcess
    short: str
    long: str


@pytest.fixture(scope="module", params=VERSIONS)
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Run a vLLM with a short and one with a long context."""
    if not installed(request.param).exists():
        pytest.skip("`make vllm` installs vLLM: several gigabytes")
    with served(request.param, SHORT_CONTEXT) as short, served(request.param, LONG_CONTEXT) as long:
        yield short, long


@pytest.fixture(params=["streamed", "buffered", "full-duplex"])
def real(request: pytest.FixtureRequest, servers: tuple[str, str], tmp_path: Path) -> Iterator[Real]:
    """Run the gateway in each mode, with a router that believes the short servers to hold twice what they do."""
    pools = [
        {"name": "short", "max_budget_tokens": 1500, "max_model_len": 2048, "endpoints": {"urls": [servers[0]]}},
        {"name": "long", "max_budget_tokens": LONG_CONTEXT, "endpoints": {"urls": [servers[1]]}},
    ]
    router = RouterProcess(tmp_path, pools=pools)
    hosts = [url.removeprefix("http://") for url in servers]
    addresses = {"dualpool": router.address, "pool_short": hosts[0], "pool_long": hosts[1]}
    gateway = Gateway(request.param, addresses, tmp_path)
    yield Real(gateway, router, *servers)
    gateway.terminate()
    assert 0 == router.metric("dualpool_exceptions_total"), router.log_tail()
    router.terminate()


def test_every_api_is_served_repaired_and_learned_from(real: Real) -> None:
    """No client of any API sees a failure: refusals are repaired. Every usage teaches; servers are watched."""
    client = openai.OpenAI(base_url=f"{real.gateway.url}/v1", api_key="-", max_retries=0)
    claude = anthropic.Anthropic(base_url=real.gateway.url, api_key="-", max_retries=0)
    eventually(lambda: real.router.metric("dualpool_pool_endpoints_answered") == 2, "both servers answered")
    for text in (FITS, DOES_NOT, WRONGLY_SHORT):
        said = [{"role": "user", "content": text}]
        chat = client.chat.completions.create(model="m", messages=said, max_tokens=4)  # type: ignore[call-overload]
        assert 4 == chat.usage.completion_tokens
        streamed = client.chat.completions.create(  # type: ignore[call-overload]
            model="m", messages=said, max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
        assert chat.usage.prompt_tokens == list(streamed)[-1].usage.prompt_tokens
        assert client.completions.create(model="m", prompt=text, max_tokens=4).usage is not None
        assert client.responses.create(model="m", input=text, max_output_tokens=16).usage is not None
        message = claude.messages.create(model="m", messages=said, max_tokens=4)  # type: ignore[arg-type]
        assert chat.usage.prompt_tokens == message.usage.input_tokens
    eventually(lambda: real.router.metric("dualpool_streams_open") == 0, "all streams have ended")
    assert real.router.metric("dualpool_requests_total", reason="fits") >= 5
    assert real.router.metric("dualpool_retried_total", pool="short") > 0
    assert real.router.metric("dualpool_estimate_ratio_count") == 15
