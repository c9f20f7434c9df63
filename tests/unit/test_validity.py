"""The validity of certificates, read from their PEM files."""

import ssl
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st
from trustme import CA

from extproc.server.validity import validity_of


@pytest.mark.parametrize("year", [2030, 2049, 2050, 9999])
def test_the_first_certificate_of_a_chain_counts(year: int) -> None:
    """Both forms of a time are read, whatever text stands before the certificate."""
    until = datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC)
    authority = CA()
    own = authority.issue_cert("localhost", not_after=until).cert_chain_pems[0].bytes()
    since = load_pem_x509_certificate(own).not_valid_before_utc
    chain = b"subject=CN = localhost\n" + own + authority.cert_pem.bytes()
    assert (since.timestamp(), until.timestamp()) == validity_of(chain.decode())


@given(der=st.binary(max_size=40), kept=st.integers(0, 900))
def test_what_is_no_certificate_raises_no_other_error(der: bytes, kept: int) -> None:
    """Any bytes, and a certificate that is cut off, give no error but those that callers expect."""
    for content in (der, CERTIFICATE[: min(kept, len(CERTIFICATE) - 1)] + der[:1]):
        with suppress(ValueError, LookupError):
            validity_of(ssl.DER_cert_to_PEM_cert(content))


CERTIFICATE = load_pem_x509_certificate(CA().cert_pem.bytes()).public_bytes(Encoding.DER)
