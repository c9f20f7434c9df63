import pytest

from extproc.compose import compose
from extproc.config.loading import parse
from extproc.core.apis import api_of
from extproc.core.facts import Api, RequestHead
from extproc.core.listener import Listener


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", Api.CHAT),
        ("/v1/completions", Api.COMPLETIONS),
        ("/v1/embeddings", Api.EMBEDDINGS),
        ("/v1/responses", Api.RESPONSES),
        ("/v1/messages", Api.MESSAGES),
        ("/openai/v1/chat/completions", Api.CHAT),
        ("/tenants/v1/team-7/v1/messages", Api.MESSAGES),
        ("/v1/chat/completions/", Api.CHAT),
        ("/v1/messages?beta=true", Api.MESSAGES),
        ("/v1/chat/completions/?next=/v1/embeddings", Api.CHAT),
        ("/openai/deployments/gpt-x/chat/completions?api-version=2026-01-01", Api.CHAT),
        ("/team/openai/deployments/gpt-x/completions", Api.COMPLETIONS),
        ("/openai/deployments/e/embeddings/", Api.EMBEDDINGS),
        ("/v1/rerank", Api.RERANK),
        ("/v2/rerank/", Api.RERANK),
        ("/rerank?x=1", Api.RERANK),
        ("/team/v1/score", Api.SCORE),
        ("/score", Api.SCORE),
        ("/generate", Api.GENERATE),
        ("/inference/v1/generate", Api.GENERATE),
    ],
)
def test_endpoints_are_recognised_by_their_path(path: str, api: Api) -> None:
    """A path that ends with an endpoint belongs to its API, whatever comes before /v1 or in the query."""
    assert api_of("POST", path) == api


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "*",
        "/v1",
        "/v1/",
        "/v1/models",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel",
        "/v1/messages/count_tokens",
        "/v1/messages//",
        "/v1/chat/completionsx",
        "/v1/CHAT/completions",
        "/v2/chat/completions",
        "/chat/completions",
        "/metrics?x=/v1/chat/completions",
        "/v1/chat/completions/v1/other",
        "/openai/deployments/gpt-x",
        "/openai/deployments/gpt-x/images/generations",
        "/deployments/gpt-x/chat/completions",
        "/team/rerank",
        "/images/generate",
        "/generate_stream",
        "/v1/audio/transcriptions",
        "/tokenize",
    ],
)
def test_other_paths_match_no_api(path: str) -> None:
    """A path that only resembles an endpoint does not match."""
    assert api_of("POST", path) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "post", ""])
def test_other_methods_match_no_api(method: str) -> None:
    """Only POST calls a model; methods are case-sensitive, as in HTTP."""
    assert api_of(method, "/v1/chat/completions") is None


@pytest.mark.parametrize(("body", "model"), [(b'{"messages":[]}', "gpt-x"), (b'{"messages":[],"model":"m"}', "m")])
def test_a_deployment_in_the_path_is_the_model_of_a_body_without_one(body: bytes, model: str) -> None:
    """Azure's requests name their model in the path; a model in the body takes precedence."""
    head = RequestHead("POST", "/openai/deployments/gpt-x/chat/completions?api-version=1")
    assert model == compose(parse(""), Listener()).placer.decide(Api.CHAT, head, body).model
