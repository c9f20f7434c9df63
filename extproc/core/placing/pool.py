"""The configuration of one pool, and the reasons for choosing a pool."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

__all__ = ["EndpointTls", "Endpoints", "Pool", "Reason"]

# Characters that need no quoting in a header value or a metric label.
_NAMES: Final = "letters, digits, dots, dashes and underscores, at most 63, the first a letter or digit"
_LONG_NAMES: Final = "1 to 256 characters"
_URLS: Final = "http:// or https:// URLs without a path or a password"
_NAMED: Final = "an http:// or https:// URL without a path or a password"
_VARIABLE: Final = "the name of an environment variable"
Url = Annotated[str, Meta(pattern=r"\Ahttps?://[^/?#@\s]+/?\Z", extra={"allowed": _URLS})]


@dataclass(frozen=True, slots=True)
class EndpointTls:
    """TLS for servers with https:// URLs; PEM files, which are reloaded when they change."""

    ca_file: str = ""
    """The certificate authorities that their certificates are verified against; if empty, those that browsers
    trust."""
    server_name: str = ""
    """The name in their certificates; if empty, the host of each URL. `dns` needs it for https://, because the
    servers are then connected to by address."""
    certificate_file: str = ""
    """The client certificate for servers that require one (mTLS), with its chain."""
    private_key_file: str = ""
    """The client certificate's key, not encrypted."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of a pool's servers, which are polled for the models that they serve and for their load. The
    servers of all these settings are combined.

    Requests are not sent to these addresses: the gateway has its own.
    """

    urls: tuple[Url, ...] = ()
    """Servers, such as `http://10.0.0.7:8000`."""
    dns: Annotated[str, Meta(pattern=r"\A(https?://[^/?#@\s]+/?)?\Z", extra={"allowed": _NAMED})] = ""
    """A URL whose host is resolved in every round; each of its addresses is a server. In Kubernetes: a headless
    Service."""
    file: str = ""
    """A file with one URL per line, which is read again in every round."""
    api_key_file: str = ""
    """A file whose first line is the key that these servers require, vLLM's --api-key. It is sent only to them, as
    `Authorization: Bearer`, and read again in every round."""
    api_key_variable: Annotated[
        str, Meta(pattern=r"\A([A-Za-z_][A-Za-z0-9_]*)?\Z", extra={"allowed": _VARIABLE})
    ] = ""
    """An environment variable that holds the key, instead of a file."""
    tls: EndpointTls | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of servers. Pools are listed in ascending order; the last one is the default, which takes all
    requests in doubt.
    """

    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z", extra={"allowed": _NAMES})]
    """The value of the pool header, and a metric label."""
    max_budget_tokens: Annotated[int, Meta(ge=1)]
    """The largest likeliest token budget that is sent here; it ascends from pool to pool."""
    max_model_len: Annotated[int, Meta(ge=1)] | None = None
    """The longest sequence that the servers accept: vLLM's --max-model-len, not below max_budget_tokens."""
    models: tuple[Annotated[str, Meta(min_length=1, max_length=256, extra={"allowed": _LONG_NAMES})], ...] = ()
    """Names of the models that are served here, with `*`, `?` and `[...]` as in a shell; empty for all, or for
    those that the endpoints list."""
    endpoints: Endpoints | None = None
    """Its servers, if they should be polled."""
    clusters: tuple[Annotated[str, Meta(min_length=1, max_length=256, extra={"allowed": _LONG_NAMES})], ...] = ()
    """The gateway's clusters that make up this pool, as named in its access log; the pool's own name, and `pool_`
    followed by it, need not be listed. Used with `learning.source: access_log`."""

    @property
    def context_tokens(self) -> int:
        """The longest sequence that the servers accept, in tokens."""
        return self.max_budget_tokens if self.max_model_len is None else self.max_model_len


class Reason(StrEnum):
    """Why a pool was chosen; a metric label and the value of the reason header."""

    FITS = "fits"
    TOO_LONG = "too_long"  # the budget fits no smaller pool
    NOT_SERVED = "not_served"  # no smaller pool serves the model
    UNKNOWN_MODEL = "unknown_model"  # no pool serves the model
    SPILLED = "spilled"  # the pool where it belongs is overloaded
    UNSEEN_HISTORY = "unseen_history"  # or parts that cannot be measured, such as files
    STORED = "stored"  # the response is stored by its server, where later requests must find it
    NOT_UNDERSTOOD = "not_understood"
    EARLY = "early"  # more bytes than any smaller pool could hold; decided before the end
    CUT_OFF = "cut_off"  # the gateway sent only the first part of the body
    DEADLINE = "deadline"  # the body did not arrive in time
    SHED = "shed"  # more requests arrived than the router could decide in time
