"""Access to a router's admin pages for the commands that read them, with the router's token if it requires one."""

import argparse
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.request import Request

from extproc.core.errors import ConfigurationError
from extproc.fetching import about_token, fetched, reason_of
from extproc.files import read_file, read_from, token_in

__all__ = ["PAGE_ERRORS", "add_token", "authorized_request", "bearer_of", "page", "why"]

TIMEOUT_S: Final = 10
MAX_TOKEN_FILE_BYTES: Final = 64 << 10
# Twice the limit for an uploaded state.
MAX_PAGE_BYTES: Final = 128 << 20

PAGE_ERRORS: Final = (OSError, HTTPException, ValueError)
"""The exceptions for an address that is invalid (ValueError), cannot be reached, or does not answer."""


def add_token(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """Add the option --token-file to a command."""
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="a file with the token of the router's admin.token_file, if it has one",
    )


def bearer_of(options: argparse.Namespace) -> str:
    """Return the token, "" if no file was given. Raises ConfigurationError if the file has none."""
    path: Path | None = options.token_file
    if path is None:
        return ""
    try:
        return token_in(read_file(path, MAX_TOKEN_FILE_BYTES))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--token-file {path}: {reason_of(error)}") from error


def authorized_request(url: str, token: str) -> Request:
    """Return a request that sends the token to this address, but not to addresses that it redirects to."""
    request = Request(url)  # noqa: S310  (callers check the scheme, or the user gave the address)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def page(url: str, token: str) -> bytes:
    """Return the content at this address. Raises one of PAGE_ERRORS."""
    with fetched(authorized_request(url, token), TIMEOUT_S) as response:
        return read_from(response, MAX_PAGE_BYTES, url)


def why(error: Exception, token: str, hint: str = "") -> str:
    """Return why an admin port did not return a page: it wants another token, or else the cause with a hint."""
    return about_token(error, token) or reason_of(error) + hint
