"""What the traps look at: one gateway that asks the router, in Envoy's terms, with the place of each part.

What is not said in a configuration is here with the value that Envoy takes for it.
"""

from extproc.gateways.model.clusters import Cluster
from extproc.gateways.model.filters import Filter, Kind, Modes, Processor
from extproc.gateways.model.gateway import Flavour, Gateway, Limits
from extproc.gateways.model.routes import NUMBER_HEADER, RETRY_HEADERS, Host, Retry, Route

__all__ = [
    "NUMBER_HEADER",
    "RETRY_HEADERS",
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
