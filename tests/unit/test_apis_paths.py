import pytest

from extproc.core.apis import api_of
from extproc.core.facts import Api


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
    ],
)
def test_endpoints_are_known_by_their_path(path: str, api: Api) -> None:
    """A path that ends with one of the endpoints is that API, whatever stands before /v1 or in the query."""
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
    ],
)
def test_other_paths_are_not_ours(path: str) -> None:
    """A path that only resembles an endpoint is none."""
    assert api_of("POST", path) is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "post", ""])
def test_other_methods_are_not_ours(method: str) -> None:
    """Only POST calls a model; methods are told apart by case, as HTTP does."""
    assert api_of(method, "/v1/chat/completions") is None
