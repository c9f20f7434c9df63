"""The state that all exchanges of one router share: placement, learning, and the listener."""

from extproc.core.apis import api_of
from extproc.core.facts import Api, RequestHead
from extproc.core.listener import Listener
from extproc.core.placing.decision import Decision, Mode
from extproc.core.placing.fleet import Fleet
from extproc.core.placing.policy import Reason
from extproc.core.router.learner import Learner
from extproc.core.router.placer import Placer

__all__ = ["Router"]


class Router:
    """The placer and the learner of one router, and the listener to both; owned by one event loop.

    With `closes_streams` a stream may be closed before the gateway ends it, if that is harmless.
    """

    def __init__(
        self, mode: Mode, placer: Placer, learner: Learner, listener: Listener, *, closes_streams: bool = True
    ) -> None:
        self.placer = placer
        self.learner = learner
        self.listener = listener
        self.closes_streams = closes_streams
        self.fleet: Fleet | None = None
        self._off = mode is Mode.OFF

    def know(self, fleet: Fleet) -> None:
        """Set what is known about the pools beyond their configuration; may be called from any thread."""
        self.fleet = fleet
        self.learner.serving = fleet.serving
        self.placer.estimator.know_parents(fleet.parents)

    def api_of(self, head: RequestHead) -> Api | None:
        """Return the API that a request calls; None if it bypasses us: an unknown API (counted), or mode off."""
        if self._off:
            return None
        api = api_of(head.method, head.path)
        if api is None:
            self.listener.passed()
        return api

    def decide(self, api: Api, head: RequestHead, body: bytes) -> Decision:
        """Place a request whose complete body has arrived."""
        decision = self.placer.decide(api, head, body, self.fleet)
        if decision.stratum is not None:
            self.learner.unjudged[decision.stratum] += 1
        self.listener.decided(decision)
        return decision

    def unsure(self, api: Api, reason: Reason, body_bytes: int, head: RequestHead) -> Decision:
        """Place a request that was not seen completely: in the default pool."""
        decision = self.placer.unsure(api, reason, body_bytes, head)
        self.listener.decided(decision)
        return decision
