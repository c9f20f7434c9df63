"""HTTP without TLS."""

import ssl

__all__ = ["NO_AUTHORITIES"]

# For every client of these tests. It trusts no certificate authority; none is needed, because nothing here speaks
# TLS. By default each new client loads all well-known authorities, which takes 30 ms.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
