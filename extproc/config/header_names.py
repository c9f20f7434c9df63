"""Rules for configurable header names: ours are set on requests, the tenant's value becomes a metric label.

Headers with credentials are recognised by the last word of their name, since all those that clouds, gateways and
providers use end in one of a few words: x-goog-api-key, x-amz-security-token, ocp-apim-subscription-key,
cf-access-jwt-assertion, private-token. A closed list would miss the next one; a tenant that has to be read from
such a header can be copied into another header.
"""

import re
from collections.abc import Iterator

from extproc.core.errors import shown

__all__ = ["check_header_name"]

# RFC 9110 tokens, in lower case as HTTP/2 requires.
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
# Headers that address, frame or describe the message: Envoy refuses to change some, and changing others breaks
# the request.
_FRAMING = {"host", "content-length", "transfer-encoding", "content-encoding", "content-type"} | {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade")
}
_CREDENTIAL_WORDS = {"authorization", "auth", "authentication", "apikey", "key", "token", "accesstoken"} | {
    *("cookie", "cookie2", "secret", "password", "credential", "credentials", "jwt", "assertion", "signature"),
    *("cert", "dpop"),  # "cert": x-forwarded-client-cert identifies the client
}
_CREDENTIALS = {"x-amzn-oidc-data"}  # a token from AWS's load balancer, though its name does not say so
# Instructions to a gateway or from one: setting them has side effects, and their values do not identify a tenant.
_ORDERS = {"x-envoy-": "Envoy", "x-gateway-destination-": "the endpoint picker"}
# The headers added here may be read but not set: an inference gateway's fairness ID, or the user name from an
# authenticating proxy, can identify a tenant.
_SET_BY_OTHERS = _ORDERS | {
    "x-gateway-": "the inference gateway",
    "x-forwarded-": "proxies",
    "forwarded": "proxies",
    "via": "proxies",
    "x-request-id": "Envoy",
    "x-amz-": "AWS, whose signatures cover it",
    "x-amzn-": "AWS",
    "x-goog-": "Google Cloud",
    "x-ms-": "Azure",
    "x-b3-": "tracing",
    "traceparent": "tracing",
    "tracestate": "tracing",
    "baggage": "tracing",
}


def check_header_name(field: str, name: str, *, is_set: bool) -> Iterator[str]:
    """Yield an error if a header's name is not allowed; `is_set` says that we set it instead of reading it."""
    given = f"{field}: {shown(name)} given"
    if not _NAME.fullmatch(name):
        yield f"{given}; allowed: a lower-case header name"
    elif name in _FRAMING:
        yield f"{given}; allowed: any except {', '.join(sorted(_FRAMING))}"
    elif re.split(r"[-_.]", name)[-1] in _CREDENTIAL_WORDS or name in _CREDENTIALS:
        why = "would be overwritten" if is_set else "would be shown as a metric's label"
        yield f"{given}; its name suggests a credential that {why}; allowed: a header without one"
    else:
        owners = (_SET_BY_OTHERS if is_set else _ORDERS).items()
        owner = next((owner for start, owner in owners if name.startswith(start)), None)
        if owner is not None:
            yield f"{given}; it belongs to {owner}; allowed: a name of your own"
