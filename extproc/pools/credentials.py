"""The API key and client certificate that a pool's servers get, and the authorities that verify the servers.

Secrets stay in files or in the environment: they never appear in a setting, a log line or an admin page. Files are
read again when they change, because keys and certificates are renewed while the router runs.
"""

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from extproc.core.errors import DualpoolError
from extproc.core.placing.pool import Endpoints, EndpointTls
from extproc.files import Stamp, refuse_pipe, stamp_of

__all__ = ["KeyUnknown", "Trust", "key_of"]

MAX_KEY_CHARS: Final = 4_096
_KEY: Final = re.compile(f"[!-~]{{1,{MAX_KEY_CHARS}}}")  # other characters could end the header


class KeyUnknown(DualpoolError):
    """A configured key cannot be read or is not valid; the message does not contain the key."""


def key_of(where: Endpoints) -> str:
    """Return the API key for a pool's servers, "" if none is configured. Raises KeyUnknown."""
    if where.api_key_file:
        source, key = where.api_key_file, _first_line(where.api_key_file)
    elif where.api_key_variable:
        source, key = f"environment variable {where.api_key_variable}", os.environ.get(where.api_key_variable, "")
    else:
        return ""
    if _KEY.fullmatch(key) is None:
        raise KeyUnknown(f"{source} contains no key: 1 to {MAX_KEY_CHARS} printable ASCII characters, no space")
    return key


def _first_line(name: str) -> str:
    try:
        refuse_pipe(name)
        with Path(name).open("rb") as file:
            return file.readline(MAX_KEY_CHARS + 2).decode("latin-1").strip()
    except OSError as error:
        raise KeyUnknown(f"{name}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Trust:
    """A TLS context and the state of the files that it was made from.

    If the files cannot be used, the context trusts no server and `fault` says why.
    """

    tls: EndpointTls
    context: ssl.SSLContext | None
    fault: str
    stamps: tuple[Stamp | None, ...]

    @classmethod
    def of(cls, tls: EndpointTls | None) -> "Trust":
        """Make a context from the files as they are now.

        Without `tls` there is none: the HTTP client makes a default one for the first https:// server.
        """
        if tls is None:
            return cls(EndpointTls(), None, "", _stamps(EndpointTls()))
        stamps = _stamps(tls)  # before the files are read: a change in between is then noticed next time
        try:
            return cls(tls, _context(tls), "", stamps)
        except OSError as error:  # includes ssl.SSLError
            fault = f"the TLS files of its servers cannot be used: {error}"
            return cls(tls, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), fault, stamps)

    @property
    def holds(self) -> bool:
        """Whether it is still what the files say: they could be used, and are the same.

        What kept them from being used may pass without a change of a file: descriptors had run out.
        """
        return not self.fault and _stamps(self.tls) == self.stamps


def _context(tls: EndpointTls) -> ssl.SSLContext:
    for each in (tls.ca_file, tls.certificate_file, tls.private_key_file):
        refuse_pipe(each)
    if tls.ca_file:
        context = ssl.create_default_context(cafile=tls.ca_file)
    else:
        context = httpx.create_ssl_context(trust_env=False)
    if tls.certificate_file:
        # An empty password, so that OpenSSL does not prompt on the terminal: encrypted keys are not supported.
        context.load_cert_chain(tls.certificate_file, tls.private_key_file, password="")
    return context


def _stamps(tls: EndpointTls) -> tuple[Stamp | None, ...]:
    return tuple(map(stamp_of, (tls.ca_file, tls.certificate_file, tls.private_key_file)))
