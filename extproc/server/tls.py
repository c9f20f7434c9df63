"""Credentials from PEM files, re-read when they change: certificates are renewed without a restart.

gRPC asks for the certificates at each handshake. Files that cannot be used are logged, and never replace good
ones.
"""

import logging
import os
import ssl

import grpc

from extproc.config.schema import TlsFiles
from extproc.core.errors import ConfigurationError
from extproc.files import read_file

__all__ = ["Certificates", "check_pem"]

# Enough for thousands of certificates.
MAX_PEM_BYTES = 16 << 20

log = logging.getLogger("dualpool")


class Certificates:
    """The credentials in the configured files, and the files' stamps at the last check."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen: list[_Stamp | None] | None = self._stamps()

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials to bind a port with. Raises ConfigurationError for files that cannot be read."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._changed,  # type: ignore[arg-type]  # the stubs do not know that None means no change
            require_client_authentication=bool(self._files.client_ca_file),
        )

    def use(self, files: TlsFiles) -> None:
        """Use other files, already checked, from the next handshake on."""
        if files != self._files:
            self._files, self._seen = files, None

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return the content of the files. Raises ConfigurationError."""
        files = self._files
        key = _read(files.private_key_file, "private_key_file")
        certificate = _read(files.certificate_file, "certificate_file")
        authority = _read(files.client_ca_file, "client_ca_file") if files.client_ca_file else None
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called at each handshake; return the files' content if it is new and usable, otherwise None."""
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        self._seen = stamps
        try:
            check_pem(self._files)
            configuration = self._configuration()
        except ConfigurationError as error:
            log.error("the TLS files have changed and cannot be used; the old ones stay in use: %s", error)  # noqa: TRY400
            return None
        log.info("the TLS files have changed and are in use")
        return configuration

    def _stamps(self) -> list["_Stamp | None"]:
        files = self._files
        return [_stamp(name) for name in (files.certificate_file, files.private_key_file, files.client_ca_file)]


def check_pem(files: TlsFiles) -> None:
    """Raise a ConfigurationError that names the unusable files, with OpenSSL's reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key, authority = files.certificate_file, files.private_key_file, files.client_ca_file
    try:
        # Given a password, OpenSSL does not prompt for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"listen.tls: certificate_file {certificate!r} and private_key_file {key!r} given; PEM files of a "
            f"certificate and of its key, not encrypted, are needed: {error}"
        ) from error
    try:
        if authority:
            context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"listen.tls.client_ca_file: {authority!r} given; a PEM file of certificates is needed: {error}"
        ) from error


_Stamp = tuple[int, int, int]


def _stamp(name: str) -> _Stamp | None:
    """Return a value that changes when the file is written or replaced; None if there is no file."""
    try:
        found = os.stat(name)  # noqa: PTH116  (Path("") would be the working folder)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(name: str, field: str) -> bytes:
    try:
        content = read_file(name, MAX_PEM_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"listen.tls.{field}: {error}") from error
    if not content:
        # With an empty CA file, gRPC would listen and then fail every handshake.
        raise ConfigurationError(f"listen.tls.{field}: {name!r} given, which is empty; a PEM file is needed")
    return content
