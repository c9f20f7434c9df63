"""The API families we understand: which one a path is, what a request says, and what its response used.

One module per family holds both sides, since the two change together; its row says all that the rest of the
program has to know, and no other table is keyed by the API. Bodies are decoded once into typed structs (msgspec
skips what we do not name, in C), so that the cost is one pass over the bytes. Rejected: decoding into dictionaries
and looking around in them, which costs three times as much and leaves every type in doubt.
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
    """Tell which API a request calls, by its method and path; None for all that is not ours.

    Any prefix before `/v1` is fine, and a query and one trailing slash are looked over. So is Azure's form,
    `/openai/deployments/{deployment}/chat/completions`, which names the model in its path. Paths without `/v1/`
    have no prefix: other services may have one that ends like them.
    """
    if method != "POST":
        return None
    if (api := _BY_PATH.get(path)) is not None:  # as most are
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
    """Return the deployment in a path of Azure's form, the model of a body that names none; "" in other paths."""
    _, found, deployed = path.partition("?")[0].rpartition(_DEPLOYMENTS)
    if not found:
        return ""
    return deployed.partition("/")[0]


_BY_ENDPOINT: Final = {family.endpoint: family.api for family in FAMILIES.values()}
_BY_PATH: Final = {
    path: family.api for family in FAMILIES.values() for path in (f"/v1/{family.endpoint}", *family.paths)
}


def read_request(api: Api, body: bytes) -> RequestFacts:
    """Read the facts of one whole request body, with work that is bounded whatever it holds.

    Raises BodyNotUnderstood, and nothing else whatever the bytes are. Nesting is bounded by the interpreter's
    recursion limit, which msgspec keeps to also in what it only skips.
    """
    if not body:
        raise BodyNotUnderstood(BodyFault.EMPTY)
    if len(body) > FREE_BYTES:
        check_work(body)
    try:
        return FAMILIES[api].read_request(body)
    except RecursionError:
        raise BodyNotUnderstood(BodyFault.TOO_DEEP) from None
