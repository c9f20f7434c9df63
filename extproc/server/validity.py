"""When a certificate begins and ceases to be valid; ssl tells this only of other parties' certificates."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from math import nan
from typing import Final, NamedTuple

__all__ = ["UNKNOWN", "Validity", "validity_of"]

_FIRST: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_VERSION_TAG: Final = 0xA0  # optional, the first field of a certificate
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime
_LONG_LENGTH: Final = 0x80


class Validity(NamedTuple):
    """The two ends as Unix times, in seconds."""

    from_s: float
    until_s: float


UNKNOWN: Final = Validity(nan, nan)


def validity_of(pem: str) -> Validity:
    """Return the validity of the first certificate of a file: the server's own, before its chain.

    Raises ValueError or LookupError for what is not a certificate.
    """
    found = _FIRST.search(pem)
    if found is None:
        raise ValueError("no certificate")
    [(_, certificate)] = _elements(ssl.PEM_cert_to_DER_cert(found[0]))
    (_, signed), *_ = _elements(certificate)
    fields = [content for tag, content in _elements(signed) if tag != _VERSION_TAG]
    _serial, _algorithm, _issuer, validity = fields[:4]
    since, until = (
        datetime.strptime(content.decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC).timestamp()
        for tag, content in _elements(validity)
    )
    return Validity(since, until)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of a sequence's content."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= _LONG_LENGTH:
            digits = length - _LONG_LENGTH
            length, at = int.from_bytes(der[at : at + digits]), at + digits
        yield tag, der[at : at + length]
        at += length
