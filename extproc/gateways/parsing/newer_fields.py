"""Fields and values of Envoy 1.40 that the messages with which it is parsed (xds-protos) do not have.

A configuration with one of them is right, but what the field does is not checked. Tests compare this table with
the installed Envoy.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["NEWER"]

# A message and its fields in a line, which continues where the next one is indented. A field with an enum's value,
# in lower case, is newer only where it has that.
_FIELDS: Final = """
envoy.config.accesslog.v3.LogTypeFilter types=tcpconnectionstart
envoy.config.bootstrap.v3.Bootstrap enable_worker_cpu_affinity
envoy.config.bootstrap.v3.MemoryAllocatorManager soft_memory_limit_bytes max_per_cpu_cache_size_bytes
  max_unfreed_memory_bytes
envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget budget_interval
envoy.config.cluster.v3.Cluster stats_matcher per_connection_buffer_high_watermark_timeout queuing_policies
envoy.config.cluster.v3.Cluster.PreconnectPolicy preconnect_enabled_metadata
envoy.config.cluster.v3.OutlierDetection detect_degraded_hosts
envoy.config.cluster.v3.UpstreamConnectionOptions.HappyEyeballsConfig first_address_family_version=pipe
  first_address_family_version=internal
envoy.config.core.v3.BindConfig validate_network_namespaces
envoy.config.core.v3.HealthCheck name
envoy.config.core.v3.HealthCheck.HttpHealthCheck use_alpn_protocol
envoy.config.core.v3.Http2ProtocolOptions enable_huffman_encoding max_header_field_size_kb disallow_obs_text
  stream_reset_burst stream_reset_rate
envoy.config.core.v3.Http3ProtocolOptions disallow_obs_text
envoy.config.core.v3.HttpProtocolOptions max_connection_duration_jitter
envoy.config.core.v3.HttpService formatters
envoy.config.core.v3.PathConfigSource poll_interval
envoy.config.core.v3.QuicProtocolOptions client_packet_writer connection_migration memory_reduction_timeout
  enable_scone
envoy.config.core.v3.SocketOption ip_version
envoy.config.core.v3.WatchedDirectory watch_modify
envoy.config.endpoint.v3.Endpoint observability_name
envoy.config.listener.v3.AdditionalAddress tcp_keepalive
envoy.config.listener.v3.Listener stats_matcher per_connection_buffer_high_watermark_timeout tcp_keepalive
envoy.config.listener.v3.Listener.ConnectionBalanceConfig cpu_locality_balance
envoy.config.metrics.v3.DogStatsdSink scale_histogram_units_to_milliseconds
envoy.config.metrics.v3.StatsConfig allow_default_tag_overrides
envoy.config.metrics.v3.StatsdSink scale_histogram_units_to_milliseconds
envoy.config.route.v3.RateLimit x_ratelimit_option
envoy.config.route.v3.RateLimit.Action remote_address_match
envoy.config.route.v3.RateLimit.Action.GenericKey default_value
envoy.config.route.v3.RateLimit.Action.HeaderValueMatch default_value
envoy.config.route.v3.RateLimit.Action.MetaData source=cluster_entry source=cluster_locality_entry
envoy.config.route.v3.RateLimit.Action.QueryParameterValueMatch default_value
envoy.config.route.v3.RateLimit.HitsAddend is_negative_hits
envoy.config.route.v3.RateLimit.Override rate_limit
envoy.config.route.v3.RedirectAction path_rewrite
envoy.config.route.v3.RetryPolicy refresh_cluster_on_retry
envoy.config.route.v3.Route route_specifiers
envoy.config.route.v3.RouteConfiguration route_specifiers
envoy.config.route.v3.RouteMatch cookies
envoy.config.route.v3.VirtualHost route_specifiers
envoy.config.trace.v3.OpenTelemetryConfig exporter set_telemetry_sdk_resource_attributes
  set_service_name_resource_attribute set_instrumentation_scope
envoy.config.trace.v3.ZipkinConfig timestamp_trace_ids
envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig http_service grpc_service
  resource_detectors log_name buffer_flush_interval buffer_size_bytes filter_state_objects_to_log custom_tags
envoy.extensions.access_loggers.stats.v3.Config stats_scope gauges
envoy.extensions.access_loggers.stats.v3.Config.Tag rules
envoy.extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3.DownstreamReverseConnectionSocketInterface
  http_handshake access_log max_reconnect_backoff maintain_interval
envoy.extensions.bootstrap.reverse_tunnel.upstream_socket_interface.v3.UpstreamReverseConnectionSocketInterface
  reporter_config enable_tenant_isolation access_log max_connections_per_node
envoy.extensions.clusters.dns.v3.DnsCluster dns_min_refresh_rate
envoy.extensions.clusters.dynamic_forward_proxy.v3.SubClustersConfig dns_cluster_config
envoy.extensions.clusters.redis.v3.RedisClusterConfig enable_zone_discovery
envoy.extensions.clusters.reverse_connection.v3.ReverseConnectionClusterConfig tenant_id_format
envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig resolved_address_filter
envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor shadow_mode
envoy.extensions.common.ratelimit.v3.RateLimitDescriptor is_negative_hits
envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.RateLimitOverride unit_multiplier
envoy.extensions.dynamic_modules.v3.DynamicModuleConfig metrics_namespace module nack_on_cache_miss
envoy.extensions.filters.http.adaptive_concurrency.v3.GradientControllerConfig.ConcurrencyLimitCalculationParams
  min_concurrency_limit
envoy.extensions.filters.http.aws_lambda.v3.Config match_excluded_headers match_included_headers
envoy.extensions.filters.http.basic_auth.v3.BasicAuth allow_missing emit_dynamic_metadata realm
envoy.extensions.filters.http.basic_auth.v3.BasicAuthPerRoute realm
envoy.extensions.filters.http.composite.v3.Composite named_filter_chains matcher
envoy.extensions.filters.http.composite.v3.ExecuteFilterAction filter_chain_name
envoy.extensions.filters.http.compressor.v3.Compressor.CommonDirectionConfig content_type_matcher
envoy.extensions.filters.http.compressor.v3.Compressor.ResponseDirectionConfig weaken_etag_on_compress
envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilterPerRoute filter_name
envoy.extensions.filters.http.ext_authz.v3.CheckSettings emit_client_span
envoy.extensions.filters.http.ext_authz.v3.ExtAuthz clear_route_cache_headers shadow_mode emit_client_span
envoy.extensions.filters.http.ext_authz.v3.HttpService path_override
envoy.extensions.filters.http.ext_proc.v3.ExtProcOverrides emit_client_span
envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor allow_content_length_header emit_client_span
envoy.extensions.filters.http.fault.v3.FaultAbort response_body
envoy.extensions.filters.http.gcp_authn.v3.Audience access_token bound_jwt bound_access_token iam_access_token
envoy.extensions.filters.http.gcp_authn.v3.GcpAuthnFilterConfig token_metadata_key audience
envoy.extensions.filters.http.gcp_authn.v3.TokenHeader preserve_existing
envoy.extensions.filters.http.grpc_field_extraction.v3.RequestFieldValueDisposition metadata_key
envoy.extensions.filters.http.header_mutation.v3.Mutations formatters
envoy.extensions.filters.http.ip_tagging.v3.IPTagging ip_tags_datasource
envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader claim_path
envoy.extensions.filters.http.jwt_authn.v3.JwtRequirement extract_only_without_validation
envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit enable_retry_after_header
envoy.extensions.filters.http.lua.v3.Lua filter_context package_paths package_cpaths shared_vm_id
envoy.extensions.filters.http.lua.v3.LuaPerRoute package_paths package_cpaths shared_vm_id
envoy.extensions.filters.http.mcp.v3.Mcp request_storage_mode propagate_trace_context propagate_baggage
  reject_duplicate_keys attribute_source early_terminate_when_routable max_supported_protocol_version
  traffic_mode=noop
envoy.extensions.filters.http.mcp.v3.McpOverride clear_route_cache parser_config request_storage_mode
  reject_duplicate_keys traffic_mode=noop
envoy.extensions.filters.http.mcp.v3.ParserConfig group_metadata_key
envoy.extensions.filters.http.mcp.v3.ParserConfig.MethodConfig group
envoy.extensions.filters.http.mcp_router.v3.McpRouter session_identity lazy_initialization
envoy.extensions.filters.http.mcp_router.v3.McpRouter.McpBackend header_forwarding
envoy.extensions.filters.http.oauth2.v3.CookieConfig partitioned
envoy.extensions.filters.http.oauth2.v3.OAuth2Config post_logout_redirect_uri forward_id_token
  allow_failed_matcher original_request_uri allowed_redirect_domains
  use_access_token_expiry_for_id_token_cookie private_key_jwt_config token_cookie_chunking
  auth_type=tls_client_auth auth_type=private_key_jwt
envoy.extensions.filters.http.proto_api_scrubber.v3.MessageRestrictions field_restrictions
envoy.extensions.filters.http.proto_api_scrubber.v3.ProtoApiScrubberConfig scrub_unknown_fields
envoy.extensions.filters.http.ratelimit.v3.RateLimit metadata_namespace enable_retry_after_header
envoy.extensions.filters.http.router.v3.Router reject_connect_request_early_data
envoy.extensions.filters.http.set_filter_state.v3.Config clear_route_cache
envoy.extensions.filters.http.stateful_session.v3.StatefulSession status_on_strict_destination_not_found
envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol.KeyValuePair value_string_encoding
envoy.extensions.filters.network.ext_authz.v3.ExtAuthz shadow_mode
envoy.extensions.filters.network.ext_proc.v3.MetadataOptions receiving_namespaces
envoy.extensions.filters.network.ext_proc.v3.NetworkExternalProcessor connection_attributes
envoy.extensions.filters.network.geoip.v3.Geoip client_ip
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager drain_timeout_jitter
  forward_proto_config record_route_resolution_stats
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails
  issuer format
envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing
  no_context_propagation
envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy max_bson_depth
envoy.extensions.filters.network.redis_proxy.v3.RedisProxy protocol_version
envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.ConnPoolSettings read_policy=local_zone_affinity
  read_policy=local_zone_affinity_replicas_and_primary
envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel required_cluster_name use_http_upgrade
  skip_rebalancing jwt_validator enable_connection_limit handshake_timeout
envoy.extensions.filters.network.reverse_tunnel.v3.Validation tenant_id_format
envoy.extensions.filters.network.set_filter_state.v3.Config on_downstream_tls_handshake on_downstream_data
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy proxy_protocol_tlv_merge_policy check_drain_close
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TcpAccessLogOptions flush_access_log_on_start
envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig formatters
envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig case_insensitive
envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig.UdpTunnelingConfig formatters
envoy.extensions.formatter.cel.v3.Cel cel_config
envoy.extensions.geoip_providers.common.v3.CommonGeoipProviderConfig.GeolocationFieldKeys asn_org
envoy.extensions.geoip_providers.common.v3.CommonGeoipProviderConfig.GeolocationHeadersToAdd asn_org
envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy
  preserve_response_code_details response_code_details
envoy.extensions.http.injected_credentials.generic.v3.Generic header_value_prefix
envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2 endpoint_params
envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2.ClientCredentials auth_type=tls_client_auth
envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin
  oob_reporting_config
envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost selected_host_key
envoy.extensions.matching.common_inputs.network.v3.FilterStateInput field
envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig qcache_max_ttl
envoy.extensions.network.socket_interface.v3.IoUringOptions write_high_watermark_bytes
  write_low_watermark_bytes enable_multishot_receive
envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig max_heap_size_bytes_runtime
envoy.extensions.stat_sinks.graphite_statsd.v3.GraphiteStatsdSink scale_histogram_units_to_milliseconds
envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig http_service max_data_points_per_request
envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport default_proxy_address
envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport enable_resumption
envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext suppress_client_ca_list
envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.TrustDomain workload_trust_domain
envoy.extensions.transport_sockets.tls.v3.TlsCertificate tls_params
envoy.extensions.transport_sockets.tls.v3.TlsParameters compliance_policies=cnsa1_202603
  compliance_policies=cnsa2_202603
envoy.extensions.wasm.v3.VmConfig capability_restriction_config
envoy.type.matcher.v3.AddressMatcher invert_match
envoy.type.metadata.v3.MetadataKey.PathSegment index
envoy.type.tracing.v3.CustomTag value_type
"""

NEWER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {name: tuple(fields) for name, *fields in map(str.split, _FIELDS.replace("\n ", "").strip().splitlines())}
)
