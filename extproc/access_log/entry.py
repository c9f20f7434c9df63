"""The part of an entry of the gateway's access log that learning needs, independent of any wire format."""

import msgspec

__all__ = ["LogEntry", "LoggedUsage"]


class LoggedUsage(msgspec.Struct, frozen=True, gc=False):
    """Token counts that the gateway extracted from a response; None if the response did not report them.

    `whole` is False if the gateway lost a part of the usage.
    """

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    whole: bool = True


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one request.

    `evidence` is the sealed text that our decision put into the entry. `cluster` is the gateway's name for the
    cluster that served the request, `attempts` the number of attempts (at least 1); `cut` is True if the response
    was cut short. `request_id` is the gateway's, for our logs.
    """

    evidence: str
    status: int
    cluster: str = ""
    attempts: int = 1
    content_encoding: str = ""
    cut: bool = False
    usage: LoggedUsage | None = None
    request_id: str = ""
