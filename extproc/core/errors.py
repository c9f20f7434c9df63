"""The exceptions of this program, by whose fault they are.

DualpoolError
├── ConfigurationError   the operator's: names the field, the value and what is allowed
├── BodyNotUnderstood    the client's: the request is passed on as it came, to the largest pool
└── ResponseNotUnderstood  the pool's: nothing is learned from the response
"""

from enum import StrEnum

__all__ = [
    "BodyFault",
    "BodyNotUnderstood",
    "ConfigurationError",
    "DualpoolError",
    "ResponseFault",
    "ResponseNotUnderstood",
]


class DualpoolError(Exception):
    """Base of every error this program raises on purpose."""


class ConfigurationError(DualpoolError):
    """The operator's configuration cannot be used; the message is one clear sentence."""


class BodyFault(StrEnum):
    """Why a request body could not be turned into facts; a metric label, so the set is closed."""

    EMPTY = "empty"
    ENCODED = "encoded"  # a content-encoding other than identity
    NOT_JSON = "not_json"
    WRONG_TYPE = "wrong_type"  # JSON, but a field we count is not of its documented type or range
    TOO_DEEP = "too_deep"


class BodyNotUnderstood(DualpoolError):
    """A request body that yields no facts."""

    def __init__(self, fault: BodyFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault.value)
        self.fault = fault


class ResponseFault(StrEnum):
    """Why a response taught nothing; a metric label, so the set is closed."""

    NOT_JSON = "not_json"
    BROKEN_SSE = "broken_sse"
    NO_USAGE = "no_usage"
    WRONG_USAGE = "wrong_usage"  # zero, negative or beyond what the bytes could hold
    ENCODING = "encoding"  # unknown content-encoding, or data that does not decode
    TOO_LARGE = "too_large"
    CUT_SHORT = "cut_short"  # the stream ended before the response did
    STATUS = "status"  # neither a 2xx nor a refusal for length
    EARLY_RESPONSE = "early_response"  # the response began before the request was whole


class ResponseNotUnderstood(DualpoolError):
    """A response from which nothing is learned."""

    def __init__(self, fault: ResponseFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}" if detail else fault.value)
        self.fault = fault
