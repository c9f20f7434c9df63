"""Faults on demand, for tests: a request asks for one in the header `x-emulate-fault`.

The header is ignored unless the emulator was started with faults enabled. One fault per request:

| header value | what happens |
|---|---|
| `status=NNN` | 1xx: that interim response, then the real one; 3xx, 4xx, 5xx: an error with that status |
| `early-status=NNN` | such an error before the request's body is read; the connection is closed after it |
| `slow=SECONDS` | waits before answering |
| `broken-json` | a JSON response that ends in the middle (with a content-length to match) |
| `broken-sse` | a stream in which every second event is invalid JSON and the last one is not terminated |
| `usage=zero` / `negative` / `million` | reports no tokens, minus the true count, a million times the true count |
| `truncated-gzip` | a gzip body that stops in the middle |
| `die` | half the response, then the connection is aborted |
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from extproc.emulator.refusals import Refusal, bad_request
from extproc.emulator.work import Usage

__all__ = ["FAULT_HEADER", "Fault", "read_fault"]

FAULT_HEADER = "x-emulate-fault"
_USAGE_FACTORS = {"zero": 0, "negative": -1, "million": 1_000_000}


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault that a request asks for; none by default."""

    flag: str = ""
    status: int = 0
    early_status: int = 0
    slow_s: float = 0.0
    usage_factor: int = 1

    def refusal(self) -> Refusal | None:
        """Return the error to answer with, if any."""
        return _refusal(self.status) if self.status >= 300 else None  # noqa: PLR2004

    def early_refusal(self) -> Refusal | None:
        """Return the error to answer with before the body is read, if any."""
        return _refusal(self.early_status) if self.early_status else None

    def reported(self, usage: Usage) -> Usage:
        """Return the usage that the response reports."""
        return Usage(usage.prompt_tokens * self.usage_factor, usage.completion_tokens * self.usage_factor)


def read_fault(value: str) -> Fault:
    """Parse the header. Raises Refusal (400) for values not in the table, so that tests notice their mistakes."""
    name, _, argument = value.strip().partition("=")
    try:
        return _READERS[name](argument)
    except (ValueError, KeyError):
        raise bad_request(f"{FAULT_HEADER}: {value!r} is not a fault", FAULT_HEADER) from None


def _status(argument: str, lowest: int) -> int:
    status = int(argument)
    if not lowest <= status < 600 or 200 <= status < 300:  # noqa: PLR2004  (HTTP's classes; a 2xx is no fault)
        raise ValueError(argument)
    return status


def _seconds(argument: str) -> float:
    seconds = float(argument)
    if not 0 <= seconds < inf:
        raise ValueError(argument)
    return seconds


def _flag(name: str) -> Callable[[str], Fault]:
    return lambda argument: {"": Fault(flag=name)}[argument]


_READERS: dict[str, Callable[[str], Fault]] = {
    "status": lambda argument: Fault(status=_status(argument, 100)),
    "early-status": lambda argument: Fault(early_status=_status(argument, 300)),
    "slow": lambda argument: Fault(slow_s=_seconds(argument)),
    "usage": lambda argument: Fault(usage_factor=_USAGE_FACTORS[argument]),
    **{name: _flag(name) for name in ("broken-json", "broken-sse", "truncated-gzip", "die")},
}


def _refusal(status: int) -> Refusal:
    return Refusal(f"emulated status {status}", kind="EmulatedFault", status=status)
