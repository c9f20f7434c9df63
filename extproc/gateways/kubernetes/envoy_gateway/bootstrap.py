"""Translation of Envoy Gateway's manifests into the Envoy configuration it generates, as far as the traps need it.

Each HTTPRoute becomes one or more routes, in the Gateway API's order of precedence. Policies for it are applied to
the route, its cluster and the connection manager, with Envoy Gateway's defaults. Source: Envoy Gateway's API
reference and its `xds/translator`; `egctl experimental translate` prints the same. The result is a bootstrap that
is then read like any other.
"""

from operator import itemgetter
from typing import Final

from extproc.gateways.kubernetes.envoy_gateway.clusters import backends_of, pool_cluster
from extproc.gateways.kubernetes.envoy_gateway.filters import http_filters
from extproc.gateways.kubernetes.envoy_gateway.listeners import Listener, listeners_of, named_listeners
from extproc.gateways.kubernetes.envoy_gateway.patches import Patches
from extproc.gateways.kubernetes.envoy_gateway.policies import Name, Policies
from extproc.gateways.kubernetes.envoy_gateway.processors import ExtProc, cluster_of, processors_of
from extproc.gateways.kubernetes.envoy_gateway.proxies import Proxies
from extproc.gateways.kubernetes.envoy_gateway.routes import Ranked, routes_of
from extproc.gateways.kubernetes.envoy_gateway.rules import Rule, Rules
from extproc.gateways.kubernetes.envoy_gateway.selectors import namespace_said
from extproc.gateways.kubernetes.host_names import ANY_HOST
from extproc.gateways.kubernetes.manifests import (
    Manifests,
    bytes_of,
    inner,
    is_true,
    made,
    optional_seconds,
    text_of,
    texts_of,
)
from extproc.gateways.kubernetes.type_names import HEADER_MUTATION, MANAGER
from extproc.gateways.parsing.sources import LocatedMap, Place

__all__ = ["bootstrap_of"]

# Defaults of Envoy Gateway 1.9.
BUFFER_BYTES: Final = 32 << 10
WINDOW_BYTES: Final = 64 << 10
CONNECTION_BYTES: Final = 1 << 20


def bootstrap_of(manifests: Manifests) -> LocatedMap:
    """Return a bootstrap with the listeners of each Gateway on which a processor is asked.

    If it is asked on none, return one listener with all routes and processors of policies, none without these.
    """
    place = next(manifests.of("EnvoyExtensionPolicy", "EnvoyPatchPolicy")).place
    processors, patches = processors_of(manifests), Patches(manifests)
    rules = Rules(manifests, processors)
    backends = backends_of(manifests)
    clusters = [
        *map(cluster_of, processors),
        *(
            pool_cluster(each.cluster, each.given, namespace_said(each.route), each.traffic, backends)
            for each in rules.all
        ),
    ]
    policies, proxies = Policies(manifests, "ClientTrafficPolicy"), Proxies(manifests)
    listeners = []
    every = [(Listener("", ""), rules.all)] if processors or not rules.all else []
    for listener, served in _asking(manifests, rules, patches) or every:
        proxy = proxies.of_gateway(listener.gateway, listener.namespace) or LocatedMap(place)
        filters = http_filters(place, served, _asked(served) or processors, proxy)
        hosts = _virtual_hosts(listener, served, proxy)
        # Without rules it cannot be told whose policies these are.
        clients = (
            policies.of_clients(listener.parents(served)) if served else [*manifests.of("ClientTrafficPolicy")]
        )
        made_of = (_listener(each, hosts, filters) for each in clients or [LocatedMap(place)])
        listeners += [patches.applied(each, listener) for each in made_of]
    return made(place, static_resources=made(place, listeners=listeners, clusters=[*clusters, *patches.clusters]))


def _asking(manifests: Manifests, rules: Rules, patches: Patches) -> list[tuple[Listener, list[Rule]]]:
    """Return the listeners on which a processor is asked, each with the rules that it serves."""
    named, found = named_listeners(manifests), []
    for of_gateway in _by_gateway(rules.all):
        for listener in listeners_of(of_gateway[0].gateway, of_gateway, named, patches.names):
            served = [_at(listener, each, rules) for each in of_gateway if listener.serves(each)]
            if any(each.asked for each in served) or patches.insert_processor_into(listener):
                found.append((listener, served))
    return found


def _at(listener: Listener, rule: Rule, rules: Rules) -> Rule:
    """Return a rule as it is at a listener; at one that only patches name, policies of others may be in force."""
    own = listener.parents([rule]) if listener.port else []
    return rules.at(rule, own or rule.parents)


def _by_gateway(rules: list[Rule]) -> list[list[Rule]]:
    """Return the rules of each Gateway; one whose namespace is not said may be another one of its name."""
    said = {name: namespace for name, namespace in (each.gateway for each in rules) if namespace}
    found: dict[Name, list[Rule]] = {}
    for rule in rules:
        name, namespace = rule.gateway
        found.setdefault((name, namespace or said.get(name, "")), []).append(rule)
    return list(found.values())


def _asked(rules: list[Rule]) -> list[ExtProc]:
    """Return the processors that are asked on the routes of a Gateway."""
    return list(dict.fromkeys(each for rule in rules for each in rule.asked))


def _listener(client: LocatedMap, hosts: list[LocatedMap], filters: list[LocatedMap]) -> LocatedMap:
    """Return a listener with a ClientTrafficPolicy, an empty one if there is none."""
    http2 = inner(client, "spec", "http2")
    windows = {
        "initial_stream_window_size": text_of(http2, "initialStreamWindowSize", str(WINDOW_BYTES)),
        "initial_connection_window_size": text_of(http2, "initialConnectionWindowSize", str(CONNECTION_BYTES)),
    }
    manager = made(
        client.place,
        **{"@type": MANAGER},
        stream_idle_timeout=optional_seconds(inner(client, "spec", "timeout", "http"), "streamIdleTimeout"),
        http2_protocol_options=made(
            http2.place, **{name: bytes_of(text, http2.place) for name, text in windows.items()}
        ),
        stat_prefix="http",
        route_config=made(client.place, name="gateway", virtual_hosts=hosts),
        http_filters=filters,
        early_header_mutation_extensions=[_stripping(client)],
    )
    network = made(client.place, name="envoy.filters.network.http_connection_manager", typed_config=manager)
    connection = inner(client, "spec", "connection")
    limit = bytes_of(text_of(connection, "bufferLimit", str(BUFFER_BYTES)), connection.place)
    return made(
        client.place,
        name="gateway",
        per_connection_buffer_limit_bytes=limit,
        filter_chains=[made(client.place, filters=[network])],
    )


def _stripping(client: LocatedMap) -> LocatedMap:
    early = inner(client, "spec", "headers", "earlyRequestHeaders")
    mutations = [{"remove": name} for name in texts_of(early, "remove")]
    config = {"@type": HEADER_MUTATION, "mutations": mutations}
    return made(early.place, name="early", typed_config=config)


def _virtual_hosts(listener: Listener, rules: list[Rule], proxy: LocatedMap) -> list[LocatedMap]:
    """Return a host for each name, with the routes that name it: the routes of one host serve a request.

    Its place is the first HTTPRoute on which a processor is asked.
    """
    routes: dict[str, list[Ranked]] = {}
    asked: dict[str, Place] = {}
    first: dict[str, Place] = {}
    for each in rules:
        for name in listener.hosts_of(each):
            routes.setdefault(name, []).extend(routes_of(each))
            (asked if each.asked else first).setdefault(name, each.route.place)
    places = first | asked
    for of_host in () if is_true(proxy, "preserveRouteOrder") else routes.values():
        of_host.sort(key=itemgetter(0))
    return [
        made(
            places[name],
            name="gateway" if name == ANY_HOST else name,
            domains=[name],
            routes=[route for _, route in of_host],
        )
        for name, of_host in routes.items()
    ]
