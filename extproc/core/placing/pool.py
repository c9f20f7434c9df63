"""What is configured of one pool, and the reasons for which a pool is chosen."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

__all__ = ["EndpointTls", "Endpoints", "Pool", "Reason"]

# What goes into a header value and a metric label without quoting.
_NAMES: Final = "letters, digits, dots, dashes and underscores, at most 63, the first a letter or digit"
_LONG_NAMES: Final = "1 to 256 characters"
_URLS: Final = "http:// or https:// URLs without a path or a password"
_NAMED: Final = "an http:// or https:// URL without a path or a password"
_VARIABLE: Final = "the name of an environment variable"
Url = Annotated[str, Meta(pattern=r"\Ahttps?://[^/?#@\s]+/?\Z", extra={"allowed": _URLS})]


@dataclass(frozen=True, slots=True)
class EndpointTls:
    """How servers with https:// URLs are asked; PEM files, read again when they change."""

    ca_file: str = ""
    """The certificate authorities that their certificates are checked against; when empty those that browsers
    trust."""
    server_name: str = ""
    """The name that their certificates are for; when empty the host of each URL. `dns` needs it for https://:
    servers are asked by their addresses then."""
    certificate_file: str = ""
    """The certificate that is shown to servers which ask for one (mTLS), with its chain."""
    private_key_file: str = ""
    """The certificate's key, not encrypted."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the servers of a pool are, to be asked what they serve and how busy they are. All of these settings
    count together.

    Requests are not sent to these addresses: the gateway has its own.
    """

    urls: tuple[Url, ...] = ()
    """Servers, such as `http://10.0.0.7:8000`."""
    dns: Annotated[str, Meta(pattern=r"\A(https?://[^/?#@\s]+/?)?\Z", extra={"allowed": _NAMED})] = ""
    """A URL whose host is looked up again and again; each of its addresses is a server. In Kubernetes: a headless
    Service."""
    file: str = ""
    """A file with one URL in each line, which is read again and again."""
    api_key_file: str = ""
    """A file whose first line is the key that these servers ask for, vLLM's --api-key. It is sent to them alone,
    as `Authorization: Bearer`, and read for each round."""
    api_key_variable: Annotated[
        str, Meta(pattern=r"\A([A-Za-z_][A-Za-z0-9_]*)?\Z", extra={"allowed": _VARIABLE})
    ] = ""
    """An environment variable that holds the key, instead of a file."""
    tls: EndpointTls | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of servers. Pools are listed in ascending order; the last is the default, for all requests that
    the router is unsure about.
    """

    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z", extra={"allowed": _NAMES})]
    """The value of the pool header, and a metric's label."""
    max_budget_tokens: Annotated[int, Meta(ge=1)]
    """The largest likeliest token budget that is sent here; it rises from pool to pool."""
    max_model_len: Annotated[int, Meta(ge=1)] | None = None
    """The longest sequence that the servers hold: vLLM's --max-model-len, not below max_budget_tokens."""
    models: tuple[Annotated[str, Meta(min_length=1, max_length=256, extra={"allowed": _LONG_NAMES})], ...] = ()
    """Names of the models that are served here, with `*`, `?` and `[...]` as in a shell; empty for all, or for
    those that the endpoints list."""
    endpoints: Endpoints | None = None
    """Its servers, when they are to be asked."""
    clusters: tuple[Annotated[str, Meta(min_length=1, max_length=256, extra={"allowed": _LONG_NAMES})], ...] = ()
    """The gateway's names of the clusters that are this pool, as in its access log; the pool's own name, and
    `pool_` followed by it, need not be listed. Used with `learning.source: access_log`."""

    @property
    def context_tokens(self) -> int:
        """What the servers hold of one sequence, in tokens."""
        return self.max_budget_tokens if self.max_model_len is None else self.max_model_len


class Reason(StrEnum):
    """Why a pool was chosen; a metric label and the value of the reason header."""

    FITS = "fits"
    TOO_LONG = "too_long"  # the budget fits no smaller pool
    NOT_SERVED = "not_served"  # no smaller pool serves the model
    UNKNOWN_MODEL = "unknown_model"  # no pool at all serves it
    SPILLED = "spilled"  # the pool where it belongs is overloaded
    UNSEEN_HISTORY = "unseen_history"  # or parts that cannot be measured, such as files
    STORED = "stored"  # the response is kept where it was given: later requests have to find it
    NOT_UNDERSTOOD = "not_understood"
    EARLY = "early"  # so many bytes that no smaller pool could hold them; decided before the end
    CUT_OFF = "cut_off"  # the gateway gave only the first part of the body
    DEADLINE = "deadline"  # the body was not there in time
    SHED = "shed"  # more requests came than the router could decide in time
