"""Credentials from PEM files, re-read when they change: certificates are renewed without a restart.

gRPC asks for the certificates at each handshake. Files that cannot be used are logged, and never replace good
ones. Since a gateway's connections may last for days, changed files are also tried without a handshake, and those
that could not be used again and again: descriptors may have run out, which no change of a file shows.
"""

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable
from typing import Final

import grpc

from extproc.config.schema import TlsFiles
from extproc.core.errors import ConfigurationError
from extproc.files import Stamp, read_followed, refuse_pipe, stamp_of
from extproc.server.validity import UNKNOWN, Validity, validity_of

__all__ = ["Certificates", "check_pem"]

# Enough for thousands of certificates.
MAX_PEM_BYTES = 16 << 20
LOOKS_EVERY_S: Final = 10.0

log = logging.getLogger("dualpool")


class Certificates:
    """The credentials in the configured files, and the stamps of the files in use.

    `report` is called with whether the files have become such that cannot be used, each time `follow` has looked.
    `validity` is that of the certificate in use.
    """

    def __init__(self, files: TlsFiles, report: Callable[[bool], None]) -> None:
        self._files = files
        self._report = report
        self._seen: list[Stamp | None] | None = self._stamps()
        self._looked = self._tried = self._seen
        self._fault: ConfigurationError | None = None
        self.validity = _validity(files)
        self._trying = threading.Lock()  # at a handshake and while following

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials to bind a port with. Raises ConfigurationError for files that cannot be read."""
        return grpc.dynamic_ssl_server_credentials(
            _content(self._files),
            self._changed,  # type: ignore[arg-type]  # the stubs do not know that None means no change
            require_client_authentication=bool(self._files.client_ca_file),
        )

    def use(self, files: TlsFiles) -> None:
        """Use other files, already checked, from the next handshake on."""
        if files != self._files:
            self._files, self._seen = files, None

    async def follow(self) -> None:
        """Look at the files every LOOKS_EVERY_S seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOKS_EVERY_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Try the files if they have changed, or could not be used; what only one look has seen may still be being
        written.
        """
        stamps = self._stamps()
        if stamps == self._looked:
            self._try(stamps, again=self._fault is not None)
        self._looked = stamps
        self._report(self._fault is not None)

    def _try(self, stamps: list[Stamp | None], *, again: bool = False) -> ConfigurationError | None:
        """Return why the files cannot be used, if so; each reason is logged once in a row."""
        with self._trying:
            if again or stamps != self._tried:
                before, self._tried, self._fault = self._fault, stamps, _fault_of(self._files)
                if self._fault is None:
                    self.validity = _validity(self._files)
                elif str(self._fault) != str(before):
                    log.error(
                        "the TLS files have changed and cannot be used; the old ones stay in use: %s", self._fault
                    )
            return self._fault

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called at each handshake; return the files' content if it is new and usable, otherwise None."""
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        if self._try(stamps) is not None:
            return None
        try:
            configuration = _content(self._files)
        except ConfigurationError:  # they have just changed again; the next handshake tries them
            return None
        self._seen = stamps
        log.info("the TLS files have changed and are in use")
        return configuration

    def _stamps(self) -> list[Stamp | None]:
        files = self._files
        return [stamp_of(name) for name in (files.certificate_file, files.private_key_file, files.client_ca_file)]


def _fault_of(files: TlsFiles) -> ConfigurationError | None:
    """Return why files cannot be used; None if they can."""
    try:
        check_pem(files)
        _content(files)
    except ConfigurationError as error:
        return error
    return None


def _validity(files: TlsFiles) -> Validity:
    """Return the validity of a certificate; unknown if OpenSSL reads it and we do not."""
    try:
        return validity_of(_read(files.certificate_file, "certificate_file").decode("latin-1"))
    except (ConfigurationError, ValueError, LookupError):
        return UNKNOWN


def _content(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Return the content of the files. Raises ConfigurationError."""
    key = _read(files.private_key_file, "private_key_file")
    certificate = _read(files.certificate_file, "certificate_file")
    authority = _read(files.client_ca_file, "client_ca_file") if files.client_ca_file else None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)


def check_pem(files: TlsFiles) -> None:
    """Raise a ConfigurationError that names the unusable files, with OpenSSL's reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key, authority = files.certificate_file, files.private_key_file, files.client_ca_file
    try:
        for each in (certificate, key):
            refuse_pipe(each)
        # Given a password, OpenSSL does not prompt for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"listen.tls: certificate_file {certificate!r} and private_key_file {key!r} given; PEM files of a "
            f"certificate and of its key, not encrypted, are needed: {error}"
        ) from error
    try:
        if authority:
            refuse_pipe(authority)
            context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"listen.tls.client_ca_file: {authority!r} given; a PEM file of certificates is needed: {error}"
        ) from error


def _read(name: str, field: str) -> bytes:
    try:
        content = read_followed(name, MAX_PEM_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"listen.tls.{field}: {error}") from error
    if not content:
        # With an empty CA file, gRPC would listen and then fail every handshake.
        raise ConfigurationError(f"listen.tls.{field}: {name!r} given, which is empty; a PEM file is needed")
    return content
