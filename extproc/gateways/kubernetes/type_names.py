"""Type URLs of the messages that are packed into others."""

from typing import Final

__all__ = [
    "API_KEY_AUTH",
    "BASIC_AUTH",
    "BUFFER",
    "BUFFER_PER_ROUTE",
    "COMPRESSOR",
    "CORS",
    "DYNAMIC_MODULE",
    "EXT_AUTHZ",
    "EXT_PROC",
    "EXT_PROC_PER_ROUTE",
    "FILTER_CONFIG",
    "HEADER_MUTATION",
    "HTTP_OPTIONS",
    "JWT_AUTHN",
    "MANAGER",
    "OAUTH2",
    "PREVIOUS_PRIORITIES",
    "RATE_LIMIT",
    "RATE_LIMIT_PER_ROUTE",
    "RBAC",
    "ROUTER",
    "WASM",
]

_PREFIX: Final = "type.googleapis.com/envoy.extensions."
MANAGER: Final = _PREFIX + "filters.network.http_connection_manager.v3.HttpConnectionManager"
EXT_PROC: Final = _PREFIX + "filters.http.ext_proc.v3.ExternalProcessor"
EXT_PROC_PER_ROUTE: Final = _PREFIX + "filters.http.ext_proc.v3.ExtProcPerRoute"
RATE_LIMIT: Final = _PREFIX + "filters.http.ratelimit.v3.RateLimit"
RATE_LIMIT_PER_ROUTE: Final = _PREFIX + "filters.http.ratelimit.v3.RateLimitPerRoute"
BUFFER: Final = _PREFIX + "filters.http.buffer.v3.Buffer"
BUFFER_PER_ROUTE: Final = _PREFIX + "filters.http.buffer.v3.BufferPerRoute"
COMPRESSOR: Final = _PREFIX + "filters.http.compressor.v3.Compressor"
DYNAMIC_MODULE: Final = _PREFIX + "filters.http.dynamic_modules.v3.DynamicModuleFilter"
WASM: Final = _PREFIX + "filters.http.wasm.v3.Wasm"
CORS: Final = _PREFIX + "filters.http.cors.v3.Cors"
EXT_AUTHZ: Final = _PREFIX + "filters.http.ext_authz.v3.ExtAuthz"
API_KEY_AUTH: Final = _PREFIX + "filters.http.api_key_auth.v3.ApiKeyAuth"
BASIC_AUTH: Final = _PREFIX + "filters.http.basic_auth.v3.BasicAuth"
OAUTH2: Final = _PREFIX + "filters.http.oauth2.v3.OAuth2"
JWT_AUTHN: Final = _PREFIX + "filters.http.jwt_authn.v3.JwtAuthentication"
RBAC: Final = _PREFIX + "filters.http.rbac.v3.RBAC"
ROUTER: Final = _PREFIX + "filters.http.router.v3.Router"
HEADER_MUTATION: Final = _PREFIX + "http.early_header_mutation.header_mutation.v3.HeaderMutation"
HTTP_OPTIONS: Final = _PREFIX + "upstreams.http.v3.HttpProtocolOptions"
PREVIOUS_PRIORITIES: Final = _PREFIX + "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
FILTER_CONFIG: Final = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
