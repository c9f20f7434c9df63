"""The supported API families: recognising them by path, reading their requests, and reading usage from responses.

One module per family holds both the request and the response side, since the two change together. Its row in
FAMILIES holds all that the rest of the program needs to know; no other table is keyed by the API. Bodies are
decoded once into typed structs (msgspec skips undeclared fields in C), so the cost is one pass over the bytes.
Rejected: decoding into dictionaries and searching them, which costs three times as much and leaves every type
unchecked.
"""

from typing import Final

from extproc.core.apis import chat, completions, embeddings, generate, messages, pairs, responses
from extproc.core.apis.family import Family
from extproc.core.apis.work import FREE_BYTES, check_work
from extproc.core.errors import BodyFault, BodyNotUnderstood
from extproc.core.facts import Api, RequestFacts

__all__ = ["FAMILIES", "api_of", "deployment_of", "read_request"]

FAMILIES: Final[dict[Api, Family]] = {
    family.api: family
    for family in (
        *(module.FAMILY for module in (chat, completions, embeddings, messages, responses)),
        *(pairs.RERANK, pairs.SCORE, generate.GENERATE),
    )
}


def api_of(method: str, path: str) -> Api | None:
    """Return the API that a request calls, by its method and path; None if we do not support it.

    Any prefix before `/v1` is accepted; a query and one trailing slash are ignored. Azure's form is accepted too:
    `/openai/deployments/{deployment}/chat/completions`, which names the model in the path. Paths without `/v1/`
    must match without a prefix, since paths of other services may end like them.
    """
    if method != "POST":
        return None
    if (api := _BY_PATH.get(path)) is not None:  # the common case
        return api
    path, _, _ = path.partition("?")
    if (api := _BY_PATH.get(path.removesuffix("/"))) is not None:
        return api
    _, found, endpoint = path.rpartition("/v1/")
    if not found:
        _, found, deployed = path.rpartition(_DEPLOYMENTS)
        _, _, endpoint = deployed.partition("/")
    return _BY_ENDPOINT.get(endpoint.removesuffix("/")) if found else None


_DEPLOYMENTS: Final = "/openai/deployments/"


def deployment_of(path: str) -> str:
    """Return the deployment in a path of Azure's form, the model if the body names none; "" for other paths."""
    _, found, deployed = path.partition("?")[0].rpartition(_DEPLOYMENTS)
    if not found:
        return ""
    return deployed.partition("/")[0]


_BY_ENDPOINT: Final = {family.endpoint: family.api for family in FAMILIES.values()}
_BY_PATH: Final = {
    path: family.api for family in FAMILIES.values() for path in (f"/v1/{family.endpoint}", *family.paths)
}


def read_request(api: Api, body: bytes) -> RequestFacts:
    """Read the facts of one complete request body. The work is bounded whatever it contains.

    Raises BodyNotUnderstood, and nothing else for any bytes. Nesting is bounded by the interpreter's recursion
    limit, which msgspec also observes in values that it skips.
    """
    if not body:
        raise BodyNotUnderstood(BodyFault.EMPTY)
    if len(body) > FREE_BYTES:
        check_work(body)
    try:
        return FAMILIES[api].read_request(body)
    except RecursionError:
        raise BodyNotUnderstood(BodyFault.TOO_DEEP) from None
