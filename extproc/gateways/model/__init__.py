"""The model that the traps examine: a gateway that calls the router, in Envoy's terms, with each part's place.

Settings that a configuration leaves out have Envoy's defaults here.
"""

from extproc.gateways.model.clusters import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, Cluster
from extproc.gateways.model.filters import Filter, Kind, Modes, Processor
from extproc.gateways.model.gateway import UNLIMITED, Flavour, Gateway, Limits
from extproc.gateways.model.routes import CONDITIONS, NUMBER_HEADER, RETRY_HEADERS, BodyCap, Host, Retry, Route

__all__ = [
    "CONDITIONS",
    "CONNECTION_WINDOW_BYTES",
    "NUMBER_HEADER",
    "RETRY_HEADERS",
    "STREAM_WINDOW_BYTES",
    "UNLIMITED",
    "BodyCap",
    "Cluster",
    "Filter",
    "Flavour",
    "Gateway",
    "Host",
    "Kind",
    "Limits",
    "Modes",
    "Processor",
    "Retry",
    "Route",
]
