"""The connection to a store: its address, its certificate, and the password, which is read from a file."""

import ssl
from pathlib import Path
from typing import Any, Final

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from extproc.core.errors import ConfigurationError
from extproc.files import read_followed, refuse_pipe
from extproc.state.settings import StoreSettings

__all__ = ["connection_to"]

MAX_PASSWORD_FILE_BYTES: Final = 64 << 10


def connection_to(settings: StoreSettings) -> redis.Redis:
    """Return a client that tries each command once. Raises ConfigurationError for an invalid URL or file."""
    options: dict[str, Any] = {}
    if settings.password_file:
        options["credential_provider"] = _PasswordFile(settings.username, Path(settings.password_file))
    elif settings.username:
        options["username"] = settings.username
    if settings.url.startswith("rediss:"):
        options["ssl_cert_reqs"] = ssl.CERT_REQUIRED
        if settings.ca_file:
            options["ssl_ca_certs"] = settings.ca_file
    try:
        refuse_pipe(settings.ca_file)
        return redis.Redis.from_url(
            settings.url,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **options,
        )
    except ValueError as error:
        raise ConfigurationError(f"state.store.url: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"state.store.ca_file: {error}") from error


class _PasswordFile(CredentialProvider):
    """Reads the password for each new connection, so that it can be changed without a restart."""

    def __init__(self, username: str, path: Path) -> None:
        self._username, self._path = username, path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = read_followed(self._path, MAX_PASSWORD_FILE_BYTES).decode().partition("\n")[0].rstrip("\r")
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        # The inherited method warns for each connection that it is not overridden.
        return self.get_credentials()
