"""Manifests for Envoy Gateway: the router's policy, the routes and their Backends, in mode BUFFERED."""

from dataclasses import replace
from typing import Any, Final

from extproc.core.placing.pool import Pool
from extproc.gateways.render.chain import connection_window_bytes
from extproc.gateways.render.comments import ENVOY_GATEWAY, ENVOY_GATEWAY_TOPS
from extproc.gateways.render.numbers import Mode, Numbers
from extproc.gateways.render.servers import HEALTH, IN_FLIGHT, PINGS_EVERY_S, PONG_WITHIN_S, REPAIRS
from extproc.gateways.render.tables import REFUSALS, RETRY_ON
from extproc.gateways.render.text import documents_of

__all__ = ["render_envoy_gateway"]

LARGEST_MIB: Final = 16
_API: Final = "gateway.envoyproxy.io"
_ROUTES: Final = "gateway.networking.k8s.io"
_NAMESPACE: Final = "dualpool"


def render_envoy_gateway(numbers: Numbers) -> str:
    """Return the policies, Backends and HTTPRoutes as YAML with comments."""
    numbers.need_other_names("upgrade", "very-large-body")
    numbers = replace(numbers, mode=Mode.BUFFERED)
    smaller = numbers.smaller_pools
    documents = [
        _extension(numbers),
        _client(numbers),
        *(
            _traffic(f"llm-{each.name}", [f"llm-{each.name}"], repaired=numbers.is_repaired(each))
            for each in smaller
        ),
        _traffic("llm", ["llm", "llm-very-large-body", "llm-upgrade"], repaired=False),
        *map(_backend, numbers.configuration.pools),
        *(_backend(each, fallback=True) for each in _fallbacks(numbers)),
        *_routes(numbers),
    ]
    return documents_of([(each, ENVOY_GATEWAY_TOPS[each["kind"]]) for each in documents], ENVOY_GATEWAY)


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    version = f"{_ROUTES}/v1" if kind == "HTTPRoute" else f"{_API}/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _target(name: str, kind: str = "HTTPRoute") -> dict[str, str]:
    return {"group": _ROUTES, "kind": kind, "name": name}


def _buffered_mib(numbers: Numbers) -> int:
    return max(min(LARGEST_MIB, numbers.body_bytes >> 20), numbers.buffer_bytes >> 20)


def _extension(numbers: Numbers) -> dict[str, Any]:
    milliseconds = round(numbers.message_timeout.total_seconds() * 1000)
    check = {
        "type": "GRPC",
        "interval": "1s",
        "timeout": "1s",
        "unhealthyThreshold": 1,
        "healthyThreshold": 1,
        "grpc": {"service": HEALTH},
    }
    processor = {
        "backendRefs": [{"name": "dualpool", "port": numbers.router_addresses[0][1] or 9002}],
        "failOpen": True,
        "messageTimeout": f"{milliseconds}ms",
        "processingMode": {"request": {"body": "Buffered"}, "response": {"body": "Streamed"}},
        "metadata": {"writableNamespaces": [_NAMESPACE]},
        "backendSettings": {
            "http2": {"connectionKeepalive": {"interval": f"{PINGS_EVERY_S}s", "timeout": f"{PONG_WITHIN_S}s"}},
            "circuitBreaker": {"maxPendingRequests": numbers.places, "maxParallelRequests": numbers.places},
            "timeout": {"tcp": {"connectTimeout": "250ms"}},
            "healthCheck": {"active": check},
        },
    }
    targets = [_target("llm"), *(_target(f"llm-{pool.name}") for pool in numbers.smaller_pools)]
    return _object("EnvoyExtensionPolicy", "dualpool", {"targetRefs": targets, "extProc": [processor]})


def _client(numbers: Numbers) -> dict[str, Any]:
    spec = {
        "targetRefs": [_target("llm", "Gateway")],
        "headers": {"earlyRequestHeaders": {"remove": list(numbers.set_headers)}},
        "connection": {"bufferLimit": f"{_buffered_mib(numbers)}Mi"},
        "http2": {
            "initialStreamWindowSize": f"{_buffered_mib(numbers)}Mi",
            "initialConnectionWindowSize": f"{connection_window_bytes(_buffered_mib(numbers) << 20) >> 20}Mi",
        },
        "timeout": {"http": {"streamIdleTimeout": "600s"}},
    }
    return _object("ClientTrafficPolicy", "llm", spec)


def _traffic(name: str, routes: list[str], *, repaired: bool) -> dict[str, Any]:
    limits = {"maxConnections": IN_FLIGHT, "maxPendingRequests": IN_FLIGHT, "maxParallelRequests": IN_FLIGHT}
    spec: dict[str, Any] = {"targetRefs": [_target(each) for each in routes]}
    if repaired:
        limits["maxParallelRetries"] = REPAIRS
        spec["retry"] = {
            "numRetries": 1,
            "numAttemptsPerPriority": 1,
            "retryOn": {"triggers": RETRY_ON.split(","), "httpStatusCodes": REFUSALS},
            "perRetry": {"backOff": {"baseInterval": "1ms"}},
        }
    spec |= {"circuitBreaker": limits, "timeout": {"tcp": {"connectTimeout": "1s"}}}
    return _object("BackendTrafficPolicy", name, spec)


def _backend(pool: Pool, *, fallback: bool = False) -> dict[str, Any]:
    """Return the Backend of a pool's servers, or with `fallback` a second one that other pools fall back to."""
    host = f"vllm-{pool.name}.{_NAMESPACE}.svc.cluster.local"
    spec = {"endpoints": [{"fqdn": {"hostname": host, "port": 8000}}]}
    if fallback:
        return _object("Backend", f"vllm-{pool.name}-fallback", {"fallback": True, **spec})
    return _object("Backend", f"vllm-{pool.name}", spec)


def _last(numbers: Numbers, pool: Pool) -> Pool:
    """Return the pool that gets what this one refuses: the largest, as there is only one level of fallback."""
    return numbers.next_pools(pool)[-1]


def _fallbacks(numbers: Numbers) -> list[Pool]:
    return list(dict.fromkeys(_last(numbers, each) for each in numbers.smaller_pools if numbers.is_repaired(each)))


def _routes(numbers: Numbers) -> list[dict[str, Any]]:
    default = f"vllm-{numbers.default_pool.name}"
    # Matches a content-length with at least as many digits as the buffer limit; a few of these would still fit.
    digits = len(str(_buffered_mib(numbers) << 20))
    length = {"type": "RegularExpression", "name": "content-length", "value": f"[0-9]{{{digits},}}"}
    upgrade = {"type": "RegularExpression", "name": "upgrade", "value": ".+"}
    pools = [
        _route(
            f"llm-{pool.name}",
            [
                f"vllm-{pool.name}",
                *([f"vllm-{_last(numbers, pool).name}-fallback"] if numbers.is_repaired(pool) else []),
            ],
            {"name": numbers.set_headers[0], "value": pool.name},
        )
        for pool in numbers.smaller_pools
    ]
    return [
        _route("llm", [default]),
        *pools,
        _route("llm-very-large-body", [default], length),
        _route("llm-upgrade", [default], upgrade),
    ]


def _route(name: str, backends: list[str], header: dict[str, str] | None = None) -> dict[str, Any]:
    match: dict[str, Any] = {"path": {"type": "PathPrefix", "value": "/"}}
    if header:
        match["headers"] = [header]
    rule = {
        "matches": [match],
        "backendRefs": [{"group": _API, "kind": "Backend", "name": each} for each in backends],
        "timeouts": {"request": "0s"},
    }
    return _object("HTTPRoute", name, {"parentRefs": [{"name": "llm"}], "rules": [rule]})
