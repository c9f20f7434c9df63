"""Traps of the cluster of a router in full duplex, where nothing fails open once a body has begun."""

from collections.abc import Iterator
from typing import Final

from extproc.gateways.model import Cluster, Gateway
from extproc.gateways.router import Router
from extproc.gateways.traps.routing import MIN_TIMEOUT_MS
from extproc.gateways.traps.trap import Hit, Severity, Trap

__all__ = ["TRAPS"]

MAX_WINDOW_BYTES: Final = 1 << 20
MIN_FRAMES: Final = 100_000


def _full_duplex_windows(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for cluster in _full_duplex_clusters(gateway):
        if cluster.stream_window_bytes > MAX_WINDOW_BYTES or cluster.max_outbound_frames < MIN_FRAMES:
            numbers = f"{cluster.stream_window_bytes:,} bytes and {cluster.max_outbound_frames:,} outbound frames"
            yield Hit(cluster.place, f'cluster "{cluster.name}" has stream windows of {numbers}')


def _full_duplex_dead_router(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for cluster in _full_duplex_clusters(gateway):
        if cluster.panics or not cluster.ejects_on_first_failure:
            yield Hit(cluster.place, f'cluster "{cluster.name}" keeps using a router that is dead')


def _full_duplex_gathered_news(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for cluster in _full_duplex_clusters(gateway):
        if cluster.batches_updates:
            yield Hit(cluster.place, f'cluster "{cluster.name}" learns late that a router is dead')


def _full_duplex_stream_cut(gateway: Gateway, _: Router) -> Iterator[Hit]:
    for cluster in _full_duplex_clusters(gateway):
        if 0 < cluster.max_duration_ms < MIN_TIMEOUT_MS:
            what = f"ends exchanges with the router after {cluster.max_duration_ms / 1000:g} s"
            yield Hit(cluster.place, f'cluster "{cluster.name}" {what}')


def _full_duplex_clusters(gateway: Gateway) -> list[Cluster]:
    asking = [each for each in gateway.processors if each.modes.request_body == "FULL_DUPLEX_STREAMED"]
    names = dict.fromkeys(each.cluster for each in asking)
    return [gateway.clusters[name] for name in names if name in gateway.clusters]


TRAPS: Final = (
    Trap(
        "full-duplex-windows",
        Severity.WARNING,
        "All uploads share one connection for each of Envoy's threads. At the default of 10,000 outbound "
        "frames a few dozen large uploads are taken for a flood, and every request on the connection fails; "
        "with windows of 16 MiB they fill Envoy's memory.",
        "http2_protocol_options: {initial_stream_window_size: 65536, max_outbound_frames: 1000000} on the "
        "router's cluster.",
        _full_duplex_windows,
        "test_full_duplex.py::test_large_uploads_flood_at_a_low_limit",
    ),
    Trap(
        "full-duplex-dead-router",
        Severity.WARNING,
        "In full duplex the filter no longer fails open once the first piece of body has been sent: until "
        "Envoy knows that a router is dead, each request sent to it is a 500; and when all are dead Envoy "
        "still uses them.",
        "outlier_detection with split_external_local_origin_errors and consecutive_local_origin_failure: 1, and "
        "common_lb_config: {healthy_panic_threshold: {value: 0}} on the router's cluster.",
        _full_duplex_dead_router,
        "test_full_duplex.py::test_killed_router_keeps_failing_requests_without_outlier_detection",
    ),
    Trap(
        "full-duplex-gathered-news",
        Severity.WARNING,
        "Envoy batches updates of its hosts' health, and passes them to its threads once a second. A router "
        "that dies within a second of another update, such as its own return, is used until the next one, "
        "ejected or not, and in full duplex each such request is a 500.",
        "common_lb_config: {update_merge_window: 0s} on the router's cluster.",
        _full_duplex_gathered_news,
        "test_full_duplex.py::test_router_that_comes_and_goes_fails_requests_if_updates_are_merged",
    ),
    Trap(
        "full-duplex-stream-cut",
        Severity.ERROR,
        "In full duplex a request and its response pass through one stream to the router for as long as they "
        "take, and max_stream_duration of the router's cluster ends that stream: slow uploads and responses that "
        "have not begun are a 500, and those that have are cut off.",
        "No max_stream_duration in common_http_protocol_options of the router's cluster; message_timeout and the "
        "listener's stream_idle_timeout end what is stuck.",
        _full_duplex_stream_cut,
        "test_full_duplex.py::test_a_stream_that_may_not_last",
    ),
)
