"""One entry of the gateway's access log, as far as it can teach: free of any wire format."""

import msgspec

__all__ = ["LogEntry", "LoggedUsage"]


class LoggedUsage(msgspec.Struct, frozen=True, gc=False):
    """Token counts that the gateway read out of a response; None is one that the response did not say.

    `whole` is False when the gateway lost a part of what would have told.
    """

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    whole: bool = True


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """What became of one request.

    `evidence` is what our decision left in the entry, sealed. `cluster` is the gateway's name for who served,
    `attempts` how many were asked (at least 1), `cut` says that the response did not come to its end.
    `request_id` is the gateway's, for logs.
    """

    evidence: str
    status: int
    cluster: str = ""
    attempts: int = 1
    content_encoding: str = ""
    cut: bool = False
    usage: LoggedUsage | None = None
    request_id: str = ""
