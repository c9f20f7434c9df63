"""HTTP without TLS."""

import ssl

__all__ = ["NO_AUTHORITIES"]

# For every client made here. It trusts nobody, and nobody has to be trusted: nothing in these tests speaks TLS.
# Otherwise each client begins by reading all authorities of the world, which takes 30 ms.
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
