"""Evidence that only routers with the same key can make: an entry of the log that was forged teaches nothing.

Sealed evidence is text, since a gateway's metadata takes no bytes: base64 of version, authentication code (HMAC
with SHA-256, RFC 2104, cut to 96 bits), and payload. The code covers the request's side alone. What the response
cost is the gateway's word: who can speak to this port in its place, and has seen its log, can say what it likes of
requests that were really made. That is what mTLS on the port is for.
"""

import hmac
from base64 import b64decode, b64encode
from enum import StrEnum
from typing import Final

from extproc.access_log.payload import VERSION_BYTES, Payloads
from extproc.core.errors import DualpoolError
from extproc.core.placing.decision import Decision

__all__ = ["MAX_SEALED_BYTES", "Seal", "Unsealed", "Untrusted"]

MAX_SEALED_BYTES: Final = 300
CODE_BYTES: Final = 12
# Clocks of replicas may differ by so much.
SKEW_S: Final = 60.0
_HEAD_BYTES: Final = VERSION_BYTES + CODE_BYTES
_MOST_PAYLOAD_BYTES: Final = MAX_SEALED_BYTES // 4 * 3 - _HEAD_BYTES


class Untrusted(StrEnum):
    """Why evidence is not believed; a metric label."""

    FORGED = "forged"  # not ours, or of another key
    OTHER_VERSION = "other_version"  # of a router of another version, or with other pools
    EXPIRED = "expired"


class Unsealed(DualpoolError):
    """Evidence that is not believed."""

    def __init__(self, why: Untrusted) -> None:
        super().__init__(why.value)
        self.why = why


class Seal:
    """Seals decisions and opens what was sealed with the same key, until it is older than `max_age_s`."""

    def __init__(self, key: bytes, payloads: Payloads, max_age_s: float) -> None:
        self._key = key
        self._payloads = payloads
        self._max_age_s = max_age_s

    def seal(self, decision: Decision, now_s: float) -> str | None:
        """Return the evidence of a decision, at most MAX_SEALED_BYTES; None when it has none.

        `now_s` is the wall clock's, in seconds, which replicas share.
        """
        payload = self._payloads.pack(decision, now_s, _MOST_PAYLOAD_BYTES)
        if payload is None:
            return None
        return b64encode(self._payloads.version + self._code(payload) + payload).decode("ascii")

    def open(self, sealed: str, now_s: float) -> Decision:
        """Return the decision that was sealed; blanks may follow it. Raises Unsealed."""
        if len(sealed) > MAX_SEALED_BYTES:
            raise Unsealed(Untrusted.FORGED)
        try:
            data = b64decode(sealed.rstrip(" "), validate=True)
        except ValueError:
            raise Unsealed(Untrusted.FORGED) from None
        version, code, payload = data[:VERSION_BYTES], data[VERSION_BYTES:_HEAD_BYTES], data[_HEAD_BYTES:]
        if version != self._payloads.version:
            raise Unsealed(Untrusted.OTHER_VERSION if len(data) > _HEAD_BYTES else Untrusted.FORGED)
        if not hmac.compare_digest(code, self._code(payload)):
            raise Unsealed(Untrusted.FORGED)
        try:
            decision, made_s = self._payloads.unpack(payload)
        except ValueError:
            raise Unsealed(Untrusted.OTHER_VERSION) from None
        if not -SKEW_S <= now_s - made_s <= self._max_age_s:
            raise Unsealed(Untrusted.EXPIRED)
        return decision

    def _code(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, self._payloads.version + payload, "sha256")[:CODE_BYTES]
