"""dualpool: an Envoy external processor that routes LLM requests by token budget."""

__version__ = "0.2.0.dev0"
