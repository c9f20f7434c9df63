"""The traps: mistakes in a gateway's configuration, their effect and their fix. One small function finds each.

Each trap is here because a test with a real Envoy demonstrates its effect; `shown_by` names the test.
"""

from extproc.gateways.traps.chain import TRAPS as CHAIN
from extproc.gateways.traps.filter import TRAPS as FILTER
from extproc.gateways.traps.full_duplex import TRAPS as FULL_DUPLEX
from extproc.gateways.traps.learning import TRAPS as LEARNING
from extproc.gateways.traps.limits import TRAPS as LIMITS
from extproc.gateways.traps.neighbours import TRAPS as NEIGHBOURS
from extproc.gateways.traps.ours import TRAPS as OURS
from extproc.gateways.traps.repairs import TRAPS as REPAIRS
from extproc.gateways.traps.routing import TRAPS as ROUTING
from extproc.gateways.traps.servers import TRAPS as SERVERS
from extproc.gateways.traps.strangers import TRAPS as STRANGERS

__all__ = ["TRAPS"]

TRAPS = (
    *ROUTING,
    *REPAIRS,
    *FILTER,
    *LEARNING,
    *LIMITS,
    *OURS,
    *SERVERS,
    *FULL_DUPLEX,
    *CHAIN,
    *NEIGHBOURS,
    *STRANGERS,
)
