"""Filters that hold each body until it has ended, and refuse large ones: `buffer`, and `ext_authz` with bodies."""

from typing import Any, Final

from envoy.extensions.filters.http.buffer.v3.buffer_pb2 import Buffer, BufferPerRoute
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import BufferSettings, ExtAuthz, ExtAuthzPerRoute

from extproc.gateways.envoy.overrides import Surroundings, is_on, said_of
from extproc.gateways.model import BodyCap, Filter, Kind
from extproc.gateways.parsing.parts import Part

__all__ = ["authorization_cap", "cap_before", "whole_bytes"]

_SIZE: Final = "max_request_bytes"


def whole_bytes(settings: Part[Any]) -> int | None:
    """Return up to which size a filter holds bodies until they have ended; None if it passes them on in pieces."""
    if buffer := settings.unpacked(Buffer):
        return buffer.number(_SIZE, 0)
    authorization = settings.unpacked(ExtAuthz)
    if authorization and authorization.message.HasField("with_request_body"):
        return _of_check(authorization.field("with_request_body"))
    return None


def cap_before(levels: list[Part[Any]], around: Surroundings) -> BodyCap | None:
    """Return what the last such filter before the router's holds of a body on a route, None if there is none.

    That is the limit of all filters from there on, whatever the listener's is.
    """
    concerned = {each.name for each in around.concerned(levels) if each.kind in {Kind.BUFFER, Kind.AUTH}}
    caps = (_cap(each, levels) for each in reversed(around.before) if each.name in concerned)
    return next(filter(None, caps), None)


def authorization_cap(levels: list[Part[Any]], around: Surroundings) -> BodyCap | None:
    """Return the lowest limit of the filters that authorize by the body on a route, None if there is none."""
    caps = (_cap(each, levels) for each in around.concerned(levels) if each.kind is Kind.AUTH)
    return min(filter(None, caps), key=lambda each: each.limit_bytes, default=None)


def _cap(filter_: Filter, levels: list[Part[Any]]) -> BodyCap | None:
    if not is_on(filter_, levels):
        return None
    limit, place = filter_.whole_bytes, filter_.place
    for _, settings in said_of(levels, filter_.name):
        buffer = settings.unpacked(BufferPerRoute) if settings else None
        if buffer and buffer.message.HasField("buffer"):
            limit, place = buffer.field("buffer").number(_SIZE, 0), buffer.place
        check = settings.unpacked(ExtAuthzPerRoute) if settings else None
        own = check.field("check_settings") if check else None
        if own and own.message.disable_request_body_buffering:
            limit = None
        elif own and own.message.HasField("with_request_body"):
            limit, place = _of_check(own.field("with_request_body")), own.place
    return None if limit is None else BodyCap(filter_.name, place, limit)


def _of_check(settings: Part[BufferSettings]) -> int | None:
    return None if settings.message.allow_partial_message else settings.message.max_request_bytes
