"""Authentication of evidence: only routers with the same key can create it, so forged log entries are ignored.

Sealed evidence is text, since a gateway's metadata cannot hold bytes: base64 of version, authentication code
(BLAKE2b with a key, RFC 7693, 96 bits), and payload. The code covers only the request's side. The usage is
reported by the gateway and not authenticated: anyone who can connect to this port in the gateway's place, and has
seen its log, can report arbitrary usage for requests that were really made. mTLS on the port prevents that.
"""

from binascii import a2b_base64, b2a_base64
from enum import StrEnum
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

from extproc.access_log.payload import VERSION_BYTES, Payloads
from extproc.core.errors import DualpoolError
from extproc.core.facts import RequestHead
from extproc.core.placing.decision import NO_HEAD, Decision

__all__ = ["MAX_SEALED_BYTES", "Keys", "Seal", "Unsealed", "Untrusted"]

MAX_SEALED_BYTES: Final = 300
CODE_BYTES: Final = 12
# The tolerated difference between the clocks of replicas.
SKEW_S: Final = 60.0
_HEAD_BYTES: Final = VERSION_BYTES + CODE_BYTES
_MOST_PAYLOAD_BYTES: Final = MAX_SEALED_BYTES // 4 * 3 - _HEAD_BYTES


class Untrusted(StrEnum):
    """Why evidence is rejected; a metric label."""

    FORGED = "forged"  # not ours, or sealed with another key
    OTHER_VERSION = "other_version"  # from another version, or with other pools or estimator.kind
    EXPIRED = "expired"


class Unsealed(DualpoolError):
    """Evidence that is rejected."""

    def __init__(self, why: Untrusted) -> None:
        super().__init__(why.value)
        self.why = why


class Keys(NamedTuple):
    """The key in use, and the one before it, which opens evidence until `former_until_s` on the wall clock."""

    key: bytes
    former: bytes = b""
    former_until_s: float = 0.0

    def followed_by(self, key: bytes, former_until_s: float) -> "Keys":
        """Return the keys after the one in use was replaced; unchanged if it is the same."""
        return self if key == self.key else Keys(key, self.key, former_until_s)


class Seal:
    """Seals decisions, and opens decisions that were sealed with the same keys at most `max_age_s` ago."""

    def __init__(self, keys: Keys, payloads: Payloads, max_age_s: float) -> None:
        self.keys = keys
        # A key of BLAKE2b has at most 64 bytes; the file may have more.
        self._key, self._former = blake2b(keys.key).digest(), blake2b(keys.former).digest()
        self._payloads = payloads
        self._max_age_s = max_age_s

    def seal(self, decision: Decision, now_s: float) -> str | None:
        """Return the evidence for a decision, at most MAX_SEALED_BYTES long; None if there is none.

        `now_s` is wall-clock time, in seconds, since replicas must agree on it.
        """
        payload = self._payloads.pack(decision, now_s, _MOST_PAYLOAD_BYTES)
        if payload is None:
            return None
        sealed = b2a_base64(self._payloads.version + self._code(payload, self._key) + payload, newline=False)
        return sealed.decode("ascii")

    def open(self, sealed: str, now_s: float, head: RequestHead = NO_HEAD) -> Decision:
        """Return the decision from sealed evidence, which trailing blanks may follow. Raises Unsealed.

        Its head, which evidence does not include, is `head`.
        """
        if len(sealed) > MAX_SEALED_BYTES:
            raise Unsealed(Untrusted.FORGED)
        try:
            data = a2b_base64(sealed.rstrip(" "), strict_mode=True)
        except ValueError:
            raise Unsealed(Untrusted.FORGED) from None
        version, code, payload = data[:VERSION_BYTES], data[VERSION_BYTES:_HEAD_BYTES], data[_HEAD_BYTES:]
        if version != self._payloads.version:
            raise Unsealed(Untrusted.OTHER_VERSION if len(data) > _HEAD_BYTES else Untrusted.FORGED)
        if not compare_digest(code, self._code(payload, self._key)) and not self._is_former(code, payload, now_s):
            raise Unsealed(Untrusted.FORGED)
        try:
            decision, made_s = self._payloads.unpack(payload, head)
        except ValueError:
            raise Unsealed(Untrusted.OTHER_VERSION) from None
        if not -SKEW_S <= now_s - made_s <= self._max_age_s:
            raise Unsealed(Untrusted.EXPIRED)
        return decision

    def _is_former(self, code: bytes, payload: bytes, now_s: float) -> bool:
        return now_s <= self.keys.former_until_s and compare_digest(code, self._code(payload, self._former))

    def _code(self, payload: bytes, key: bytes) -> bytes:
        return blake2b(self._payloads.version + payload, digest_size=CODE_BYTES, key=key).digest()
