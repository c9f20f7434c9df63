"""Clusters whose servers are not found in the usual ways, as newer control planes write them."""

from copy import deepcopy

from tests.envoy.harness.gateway import Document, cluster, route

__all__ = ["by_attempt", "dns_by_extension", "scaled_to_zero"]

_KINDS = "type.googleapis.com/envoy.extensions.clusters"


def dns_by_extension(document: Document, *, one_address: bool) -> None:
    """Look the short pool's servers up by the extension that stands for both types of DNS."""
    held = cluster(document, "pool_short")
    del held["type"]
    settings = {"@type": f"{_KINDS}.dns.v3.DnsCluster", "all_addresses_in_single_endpoint": one_address}
    held["cluster_type"] = {"name": "envoy.cluster.dns", "typed_config": settings}


def by_attempt(document: Document) -> None:
    """Let an extension choose the pool by the number of the attempt, so that no retry_priority is needed."""
    held = cluster(document, "short_then_long")
    members = [{"name": name} for name in ("pool_short", "pool_long")]
    settings = {"@type": f"{_KINDS}.composite.v3.ClusterConfig", "clusters": members}
    held["cluster_type"] = {"name": "envoy.clusters.composite", "typed_config": settings}
    action = route(document, "short")["route"]
    action["retry_policy"] = deepcopy(action["retry_policy"])
    del action["retry_policy"]["retry_priority"]


def scaled_to_zero(document: Document) -> None:
    """Leave no server in either pool, as a control plane or a config dump says it."""
    for name in ("pool_short", "pool_long"):
        held = cluster(document, name)
        held |= {"type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}
        held["load_assignment"]["endpoints"] = [{}]
