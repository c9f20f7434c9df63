"""The settings and their defaults; the configuration file has the structure of these classes.

The string below a setting describes it: docs/configuration.md is generated from these strings.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from msgspec import Meta

from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.exchange.settings import ExchangeSettings
from extproc.core.headers import HeaderNames
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Pool
from extproc.core.placing.spill import SpillSettings
from extproc.core.router.learning_budget import LearningSettings
from extproc.pools.settings import WatchSettings
from extproc.state.settings import StateSettings

__all__ = ["AdminSettings", "Configuration", "ListenSettings", "MetricsSettings", "TlsFiles", "TraceSettings"]

_FILE: Final = Meta(min_length=1, extra={"allowed": "a file's name"})
_OWNER: Final = "user, user:group or :group"
# A password, in the URL itself or its query, would appear on /config.
_COLLECTOR: Final = (
    "an http:// or https:// URL without a password or a query; headers are read from OTEL_EXPORTER_OTLP_HEADERS"
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files with which the gateway's port is served over TLS."""

    certificate_file: Annotated[str, _FILE]
    """The server's certificate, with its chain."""
    private_key_file: Annotated[str, _FILE]
    """The certificate's key, not encrypted."""
    client_ca_file: str = ""
    """If set, the gateway has to present a certificate from this authority (mTLS)."""


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where the gateway reaches the router."""

    address: str = "[::]:9002"
    """`host:port`, or `unix:/path`; port 0 means any free port. `[::]` means every address, or every IPv4 address
    if the host has no IPv6."""
    socket_mode: Annotated[
        str, Meta(pattern=r"\A([0-7]{3,4})?\Z", extra={"allowed": "three or four octal digits"})
    ] = ""
    """Permissions of a Unix socket, in octal, such as `"0660"`; if empty, the umask decides."""
    socket_owner: Annotated[str, Meta(pattern=r"\A([^:\s]*(:[^:\s]+)?)\Z", extra={"allowed": _OWNER})] = ""
    """Owner of a Unix socket, as `user`, `user:group` or `:group`, names or numbers; if empty, the router's
    user and group."""
    health_address: str = ""
    """`host:port` of an additional port, without TLS, that serves only gRPC health checks: for probes if the
    gateway's port has TLS."""
    tls: TlsFiles | None = None
    max_message_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 30)] = 128 << 20
    """The largest message that is accepted. In BUFFERED mode a message contains the whole body: the limit has to
    be above the gateway's buffer limit."""
    idle_s: Annotated[float, Meta(ge=1)] = 900.0
    """A stream on which the gateway is silent for this long (up to a quarter longer) is closed as soon as that
    is harmless; its response is not learned from."""


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where `/metrics`, `/healthz`, `/readyz`, `/config` and `/state` are served."""

    address: str = "127.0.0.1:9090"
    """`host:port` of all these pages, which show the configuration and the names of models and tenants; port 0
    means any free port."""
    token_file: str = ""
    """A file whose first line is a token that all pages except `/metrics`, `/healthz` and `/readyz` then require,
    as `Authorization: Bearer`, or as the password (with any user name) in a browser. Callers that send it as
    `Authorization: Bearer` can also change the learned state ([state.md](state.md)); without this file it cannot
    be changed. The file is read for each request, so that the token can be changed without a restart."""
    probes_address: str = ""
    """`host:port` of an additional port that serves only `/metrics`, `/healthz` and `/readyz`: for probes and
    scrapes from other machines."""


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Limits for metric labels whose values come from clients; beyond them the label is `other`."""

    max_models: Annotated[int, Meta(ge=1)] = 50
    """Number of models that get their own label, after a pool has served them."""
    max_categories: Annotated[int, Meta(ge=1)] = 50
    """Number of categories (tenants, or kinds of text) that get their own label."""


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Export of a span per request of a sampled trace to an OpenTelemetry collector; needs `dualpool[otel]`."""

    endpoint: Annotated[str, Meta(pattern=r"\Ahttps?://[^/?#@\s]+(/[^?#@\s]*)?\Z", extra={"allowed": _COLLECTOR})]
    """URL that spans are sent to, as OTLP in JSON over HTTP: `http://collector:4318/v1/traces`."""
    service_name: Annotated[str, Meta(min_length=1, extra={"allowed": "text of at least one character"})] = (
        "dualpool"
    )
    """The resource attribute `service.name`."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings of the router as a whole."""

    mode: Mode = Mode.ENFORCE
    """`enforce` routes; `shadow` decides, counts and learns, but sets no header; `off` lets every request pass."""
    listen: ListenSettings = field(default_factory=ListenSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    pools: tuple[Pool, ...] = (Pool("short", 8_192), Pool("long", 65_536))
    watch: WatchSettings = field(default_factory=WatchSettings)
    spill: SpillSettings = field(default_factory=SpillSettings)
    headers: HeaderNames = field(default_factory=HeaderNames)
    tenant_header: str = ""
    """The request header, in lower case, whose value distinguishes tenants in the learned state and in metrics."""
    responses_stored_by_default: bool = False
    """Whether the servers store responses of `/v1/responses` unless a request says `store: false`; requests whose
    response is stored go to the default pool. vLLM stores nothing unless it is configured to."""
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    state: StateSettings = field(default_factory=StateSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    traces: TraceSettings | None = None
    drain_s: Annotated[float, Meta(ge=0, le=3_600)] = 15.0
    """How long the router keeps serving after SIGTERM, while its health checks report that it is shutting down."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log lines that are written; `debug` logs every decision."""
