"""dualpool: an Envoy external processor that routes LLM requests by token budget."""

__version__ = "0.1.0"
