"""The virtual hosts that Istio generates, of VirtualServices and of the Gateway API's HTTPRoutes.

What is for one host of one gateway comes into one virtual host. Source: Istio's `networking/core/route` and its
`networking/core/gateway.go`.
"""

from collections.abc import Callable, Iterator
from typing import Any

from extproc.gateways.kubernetes.host_names import ANY_HOST
from extproc.gateways.kubernetes.istio.delegates import Delegates
from extproc.gateways.kubernetes.istio.frontends import Frontend, Frontends
from extproc.gateways.kubernetes.istio.http_routes import precedence, routes_of_http_route
from extproc.gateways.kubernetes.istio.retries import mesh_retries
from extproc.gateways.kubernetes.istio.scope import workload_of
from extproc.gateways.kubernetes.istio.virtual_services import routes_of_virtual_service, takes_all
from extproc.gateways.kubernetes.manifests import Manifests, inner, made, name_of, texts_of
from extproc.gateways.parsing.sources import LocatedMap

__all__ = ["hosts_of"]

Hosts = dict[tuple[str, Frontend], list[tuple[LocatedMap, list[LocatedMap]]]]
"""By host name and frontend the objects that name both, each with its routes there."""


def hosts_of(manifests: Manifests) -> Iterator[LocatedMap]:
    """Yield the virtual hosts, with Istio's defaults in their routes.

    Those of gateways that are known to be other ones than the router's filter is in are left out, unless all are.
    If no gateway has any of their hosts, there is one without routes, as Istio generates.
    """
    services, routes = _of_services(manifests), _of_http_routes(manifests)
    workload = workload_of(manifests)
    if not (services or routes):
        unserved = [*_with_hosts(manifests), *manifests.of("HTTPRoute")]
        yield from (_host(ANY_HOST, "", [(each, [])], takes_all) for each in unserved)
    known = any(frontend.may_run_on(workload) for _, frontend in [*services, *routes])
    for hosts, key in ((services, takes_all), (routes, precedence)):
        for (host, frontend), found in hosts.items():
            if not known or frontend.may_run_on(workload):
                yield _host(host, frontend.port, found, key)


def _of_services(manifests: Manifests) -> Hosts:
    workload, of_mesh = workload_of(manifests), mesh_retries(manifests)
    frontends, delegates = Frontends(manifests), Delegates(manifests)
    found: Hosts = {}
    for service in _with_hosts(manifests):
        for frontend, hosts in frontends.of_virtual_service(service):
            routes = routes_of_virtual_service(service, delegates, frontend, workload, of_mesh)
            for host in hosts:
                found.setdefault((host, frontend.at(workload)), []).append((service, routes))
    return found


def _with_hosts(manifests: Manifests) -> list[LocatedMap]:
    """Return the VirtualServices but those that only others delegate to."""
    return [each for each in manifests.of("VirtualService") if texts_of(inner(each, "spec"), "hosts")]


def _of_http_routes(manifests: Manifests) -> Hosts:
    of_mesh, frontends = mesh_retries(manifests), Frontends(manifests)
    found: Hosts = {}
    for route in manifests.of("HTTPRoute"):
        routes = routes_of_http_route(route, of_mesh)
        for frontend, hosts in frontends.of_http_route(route).items():
            for host in hosts:
                found.setdefault((host, frontend), []).append((route, routes))
    return found


def _host(
    host: str, port: str, found: list[tuple[LocatedMap, list[LocatedMap]]], key: Callable[[LocatedMap], Any]
) -> LocatedMap:
    """Return a virtual host; where its port is known, the name that Istio gives it is a domain, too."""
    first = found[0][0]
    routes = sorted((route for _, of_object in found for route in of_object), key=key)
    return made(
        first.place, name=name_of(first), domains=[host, *([f"{host}:{port}"] if port else [])], routes=routes
    )
