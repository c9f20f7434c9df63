"""Conversion of Envoy's ext_proc filter into the model: its own settings, and the overrides of routes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from envoy.config.common.mutation_rules.v3.mutation_rules_pb2 import HeaderMutationRules
from envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2 import (
    ExternalProcessor,
    ExtProcOverrides,
    HeaderForwardingRules,
)
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from extproc.gateways.matching.strings import regex_matches, string_matches
from extproc.gateways.model import Modes, Processor
from extproc.gateways.parsing.parts import Part, enum_name, milliseconds

__all__ = ["overridden", "processor_of"]

# Envoy's default.
MESSAGE_TIMEOUT_MS: Final = 200.0
# Stands for any header that the router does not set.
A_HEADER: Final = "x-tenant"


def processor_of(
    name: str, part: Part[ExternalProcessor], wanted: Iterable[str], given: Iterable[str]
) -> Processor:
    """Return the filter. `wanted` are the headers that the router reads, `given` those that it sets."""
    message = part.message
    retain = message.route_cache_action == ExternalProcessor.RouteCacheAction.RETAIN
    rules = message.forward_rules
    return Processor(
        name=name,
        place=part.place,
        cluster=message.grpc_service.envoy_grpc.cluster_name,
        modes=_modes(message.processing_mode),
        modes_place=part.place_of("processing_mode"),
        sends_body_at_once=message.send_body_without_waiting_for_header_response,
        fails_open=message.failure_mode_allow,
        message_timeout_ms=milliseconds(part, "message_timeout", MESSAGE_TIMEOUT_MS),
        timeout_place=part.place_of("message_timeout"),
        keeps_route=retain or message.disable_clear_route_cache,
        namespaces=frozenset(message.metadata_options.receiving_namespaces.untyped),
        withheld=frozenset(name for name in wanted if not _forwarded(rules, name)),
        refused=frozenset(name for name in given if _refused(message.mutation_rules, name)),
        refusal_fails=message.mutation_rules.disallow_is_error.value,
        only_observes=message.observability_mode,
        lets_respond=not message.disable_immediate_response,
        lets_change=not _refused(message.mutation_rules, A_HEADER),
    )


def overridden(processor: Processor, part: Part[ExtProcOverrides]) -> Processor:
    """Return the filter with a route's overrides applied."""
    message: Any = part.message
    if message.HasField("processing_mode"):
        place = part.place_of("processing_mode")
        processor = replace(processor, modes=_modes(message.processing_mode), modes_place=place)
    if message.HasField("grpc_service"):
        processor = replace(processor, cluster=message.grpc_service.envoy_grpc.cluster_name)
    if message.HasField("failure_mode_allow"):
        processor = replace(processor, fails_open=message.failure_mode_allow.value)
    if message.HasField("metadata_options"):
        names = frozenset(message.metadata_options.receiving_namespaces.untyped)
        processor = replace(processor, namespaces=names)
    return processor


def _modes(message: ProcessingMode) -> Modes:
    def head(value: int) -> str:
        return enum_name(ProcessingMode.HeaderSendMode, value)

    def body(value: int) -> str:
        return enum_name(ProcessingMode.BodySendMode, value)

    return Modes(
        head(message.request_header_mode),
        body(message.request_body_mode),
        head(message.request_trailer_mode),
        head(message.response_header_mode),
        body(message.response_body_mode),
        head(message.response_trailer_mode),
    )


def _refused(rules: HeaderMutationRules, name: str) -> bool:
    """Return whether the rules forbid setting this header, which is neither a system header nor an x-envoy one."""
    if rules.HasField("disallow_expression") and regex_matches(rules.disallow_expression.regex, name):
        return True
    allowed = rules.HasField("allow_expression") and regex_matches(rules.allow_expression.regex, name)
    return bool(rules.disallow_all.value) and not allowed


def _forwarded(rules: HeaderForwardingRules, name: str) -> bool:
    if any(string_matches(each, name) for each in rules.disallowed_headers.patterns):
        return False
    allowed = rules.allowed_headers.patterns
    return not rules.HasField("allowed_headers") or any(string_matches(each, name) for each in allowed)
