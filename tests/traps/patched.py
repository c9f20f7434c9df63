"""The router's filter as an EnvoyPatchPolicy inserts it: on the real Envoy, and for the checker."""

from typing import Final

__all__ = ["FILTER", "SETTINGS"]

# As in the guides of projects that route LLM requests: Envoy's fields in lowerCamelCase, and a cluster of its own.
FILTER: Final = """{
        name: dualpool,
        typedConfig: {
          "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor,
          grpcService: {envoyGrpc: {clusterName: dualpool}, timeout: 60s},
          processingMode: {requestBodyMode: STREAMED, responseHeaderMode: SKIP},
          %s
        }}"""
SETTINGS: Final = """
          failureModeAllow: true, messageTimeout: 0.5s, sendBodyWithoutWaitingForHeaderResponse: true,
          disableImmediateResponse: true, metadataOptions: {receivingNamespaces: {untyped: [dualpool]}},
          mutationRules: {disallowAll: true, allowExpression: {regex: x-token-budget-.*}}"""
