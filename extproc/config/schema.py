"""What can be configured, with its defaults; the file has the shape of these classes."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from extproc.core.estimator.settings import EstimatorSettings
from extproc.core.exchange.settings import ExchangeSettings
from extproc.core.headers import HeaderNames
from extproc.core.placing.decision import Mode
from extproc.core.placing.policy import Pool
from extproc.core.router.learning_budget import LearningSettings

__all__ = ["AdminSettings", "Configuration", "ListenSettings", "MetricsSettings", "TlsFiles"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. With `client_ca_file` the gateway has to show a certificate of that authority (mTLS)."""

    certificate_file: str
    private_key_file: str
    client_ca_file: str = ""


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where the gateway reaches us: "host:port", or "unix:/path".

    `max_message_bytes` is the largest single message taken: in BUFFERED mode that is a whole body, so it has to be
    above the gateway's own buffer limit.
    """

    address: str = "0.0.0.0:9002"
    tls: TlsFiles | None = None
    max_message_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 30)] = 128 << 20


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """Where /metrics, /healthz, /readyz, /config and /state are served: "host:port"."""

    address: str = "0.0.0.0:9090"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """How many distinct models and categories get a label of their own; the rest is `other`."""

    max_models: Annotated[int, Meta(ge=1)] = 50
    max_categories: Annotated[int, Meta(ge=1)] = 50


@dataclass(frozen=True, slots=True)
class Configuration:
    """The whole file. `tenant_header` (lower-case) makes its value part of what is learned by."""

    mode: Mode = Mode.ENFORCE
    listen: ListenSettings = field(default_factory=ListenSettings)
    admin: AdminSettings = field(default_factory=AdminSettings)
    pools: tuple[Pool, ...] = (Pool("short", 8_192), Pool("long", 65_536))
    headers: HeaderNames = field(default_factory=HeaderNames)
    tenant_header: str = ""
    exchange: ExchangeSettings = field(default_factory=ExchangeSettings)
    estimator: EstimatorSettings = field(default_factory=EstimatorSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    drain_s: Annotated[float, Meta(ge=0, le=3_600)] = 15.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
