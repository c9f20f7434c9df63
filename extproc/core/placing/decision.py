"""The one object that says how a request was placed; metrics, logs and headers are made from it."""

from enum import StrEnum
from typing import Final

import msgspec

from extproc.core.errors import BodyFault
from extproc.core.estimator.counting import Counted
from extproc.core.estimator.protocol import Estimate
from extproc.core.facts import Api, RequestHead
from extproc.core.placing.budget import TokenBudget
from extproc.core.placing.policy import Pool, Reason
from extproc.core.placing.stratum import Stratum

__all__ = ["NO_HEAD", "Decision", "Mode"]

NO_HEAD: Final = RequestHead()


class Mode(StrEnum):
    """What the router does with its decisions."""

    ENFORCE = "enforce"
    SHADOW = "shadow"  # decides, counts and learns, but sets no header
    OFF = "off"  # passes everything through


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Where one request goes, and why.

    `routed` is True when the pool header is set: a smaller pool than the default, in mode enforce. `estimate` and
    `budget` are None, and `model` is "", when the body was not seen whole or not understood. `learnable` says that
    usage will be in the response. The prompt's text is not in here: a decision lives as long as the response runs.
    `counted` is what came of counting its text, where that was tried; the estimate is made of it, unless it was
    given up. `stratum` is the part of the traffic that it is of, None without an estimate. By `head` logs and
    traces are matched with the gateway's; it has no part in where the request goes.
    """

    pool: Pool
    reason: Reason
    mode: Mode
    routed: bool
    api: Api
    model: str = ""
    estimate: Estimate | None = None
    budget: TokenBudget | None = None
    stream: bool = False
    learnable: bool = False
    fault: BodyFault | None = None
    body_bytes: int = 0
    text_bytes: int = 0
    head: RequestHead = NO_HEAD
    counted: Counted | None = None
    stratum: Stratum | None = None
