"""The external processors of EnvoyExtensionPolicies: the filter and the cluster that Envoy Gateway makes of each.

Source: Envoy Gateway's API reference and its `xds/translator`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from extproc.core.errors import ConfigurationError
from extproc.gateways.kubernetes.envoy_gateway.clusters import cluster_with
from extproc.gateways.kubernetes.envoy_gateway.selectors import namespace_said
from extproc.gateways.kubernetes.manifests import (
    Manifests,
    bytes_of,
    inner,
    is_true,
    items_of,
    made,
    merged,
    name_of,
    optional_seconds,
    seconds_of,
    text_of,
    texts_of,
)
from extproc.gateways.kubernetes.type_names import EXT_PROC, HTTP_OPTIONS
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["FILTERS_OF_POLICIES", "ExtProc", "asked_of", "by_entry", "cluster_of", "filter_of", "processors_of"]

# The names of filters begin like that.
FILTERS_OF_POLICIES: Final = "envoy.filters.http.ext_proc/envoyextensionpolicy/"
_MODES: Final = {
    "Streamed": "STREAMED",
    "Buffered": "BUFFERED",
    "BufferedPartial": "BUFFERED_PARTIAL",
    "FullDuplexStreamed": "FULL_DUPLEX_STREAMED",
}


@dataclass(frozen=True, slots=True, eq=False)
class ExtProc:
    """An entry `extProc` of a policy, and the names of its filter and its cluster."""

    name: str
    cluster: str
    given: LocatedMap


def processors_of(manifests: Manifests) -> list[ExtProc]:
    """Return the processors of all EnvoyExtensionPolicies."""
    found = []
    for policy in manifests.of("EnvoyExtensionPolicy"):
        for at, given in enumerate(items_of(inner(policy, "spec"), "extProc")):
            whose = "/".join(filter(None, (namespace_said(policy), name_of(policy))))
            servers = [text_of(each, "name") for each in items_of(given, "backendRefs")]
            cluster = "/".join([whose, str(at), *servers])
            found.append(ExtProc(f"{FILTERS_OF_POLICIES}{whose}/extproc/{at}", cluster, given))
    return found


def by_entry(processors: Iterable[ExtProc]) -> dict[int, ExtProc]:
    """Return the processors by the identity of what is given of each, for `asked_of`."""
    return {id(each.given): each for each in processors}


def asked_of(policy: LocatedMap, processors: Mapping[int, ExtProc]) -> list[ExtProc]:
    """Return which of the processors are a policy's."""
    return [processors[id(each)] for each in items_of(policy, "extProc") if id(each) in processors]


def filter_of(processor: ExtProc) -> LocatedMap:
    """Return the filter of a processor, which is disabled but on the routes that name it."""
    given = processor.given
    mode = inner(given, "processingMode")
    settings = made(
        given.place,
        **{"@type": EXT_PROC},
        grpc_service={"envoy_grpc": {"cluster_name": processor.cluster}},
        failure_mode_allow=is_true(given, "failOpen"),
        observability_mode=is_true(given, "shadowMode"),
        message_timeout=seconds_of(text_of(given, "messageTimeout", "200ms"), given.place),
        processing_mode=made(mode.place, **_direction(mode, "request"), **_direction(mode, "response")),
        metadata_options={
            "receiving_namespaces": {"untyped": texts_of(inner(given, "metadata"), "writableNamespaces")}
        },
    )
    return made(given.place, name=processor.name, disabled=True, typed_config=settings)


def _direction(mode: LocatedMap, name: str) -> dict[str, str]:
    """Return the modes of one direction: no entry sends nothing, an entry without a body sends headers only."""
    if name not in mode:
        return {f"{name}_header_mode": "SKIP"}
    body = text_of(inner(mode, name), "body")
    if not body:
        return {f"{name}_header_mode": "SEND"}
    if body not in _MODES:
        raise ConfigurationError(f"{mode.place}: body {body!r} given; allowed: {', '.join(_MODES)}")
    full_duplex = body == "FullDuplexStreamed"
    trailers = {f"{name}_trailer_mode": "SEND"} if full_duplex else {}
    return {f"{name}_header_mode": "SEND", f"{name}_body_mode": _MODES[body], **trailers}


def cluster_of(processor: ExtProc) -> LocatedMap:
    """Return the cluster of a processor."""
    given = processor.given
    settings = inner(given, "backendSettings")
    http2 = inner(settings, "http2")
    window, pings = text_of(http2, "initialStreamWindowSize"), inner(http2, "connectionKeepalive")
    options = made(
        http2.place,
        initial_stream_window_size=bytes_of(window, http2.place) if window else None,
        connection_keepalive=made(pings.place, interval=optional_seconds(pings, "interval")) if pings else None,
    )
    protocol = {"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": options}}
    said = made(
        given.place, type="EDS", typed_extension_protocol_options={HTTP_OPTIONS.rpartition("/")[2]: protocol}
    )
    return merged(cluster_with(settings, processor.cluster, given.place), said)
