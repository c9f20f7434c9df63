"""Files that the router reads again and again, while it runs, and that have become named pipes."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from extproc.config.schema import TlsFiles
from extproc.core.errors import DualpoolError
from extproc.core.placing.pool import Endpoints, EndpointTls
from extproc.pools.addresses import endpoints
from extproc.pools.credentials import Trust, key_of
from extproc.server.access import read_token
from extproc.server.log_key import read_key
from extproc.server.tls import Certificates, check_pem
from extproc.state.connection import connection_to
from extproc.state.settings import StoreSettings


def _key_of(file: str) -> object:
    return key_of(Endpoints(api_key_file=file))


def _endpoints(file: str) -> object:
    return asyncio.run(endpoints(Endpoints(file=file), 60.0))


def _trust(file: str, field: str) -> None:
    raise DualpoolError(Trust.of(EndpointTls(**{field: file})).fault)


def _tls(file: str, field: str) -> TlsFiles:
    return TlsFiles(**{"certificate_file": "/nonexistent", "private_key_file": "/nonexistent", field: file})


def _password(file: str) -> object:
    pool: Any = connection_to(StoreSettings(url="redis://127.0.0.1:1", password_file=file)).connection_pool
    return pool.connection_kwargs["credential_provider"].get_credentials()


READS: dict[str, Callable[[str], object]] = {
    "admin.token_file": read_token,
    "learning.access_log.key_file": read_key,
    "listen.tls.certificate_file": lambda file: check_pem(_tls(file, "certificate_file")),
    "listen.tls.private_key_file": lambda file: check_pem(_tls(file, "private_key_file")),
    "listen.tls at a handshake": lambda file: Certificates(_tls(file, "private_key_file"), print).credentials(),
    "state.store.password_file": _password,
    "state.store.ca_file": lambda file: connection_to(StoreSettings(url="rediss://127.0.0.1:1", ca_file=file)),
    "endpoints.file": _endpoints,
    "endpoints.api_key_file": _key_of,
    "endpoints.tls.ca_file": lambda file: _trust(file, "ca_file"),
    "endpoints.tls.certificate_file": lambda file: _trust(file, "certificate_file"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_pipe_is_refused_and_not_waited_for(read: Callable[[str], object], tmp_path: Path) -> None:
    """Nobody may ever write to it, and the thread that waits may be the one that answers probes."""
    os.mkfifo(pipe := tmp_path / "pipe")
    raised: list[Exception] = []

    def reading() -> None:
        try:
            read(str(pipe))
        except (DualpoolError, OSError) as error:
            raised.append(error)

    thread = threading.Thread(target=reading, daemon=True)
    thread.start()
    thread.join(20)
    assert ["a pipe"] == ["a pipe" if "a pipe" in str(error) else str(error) for error in raised]
