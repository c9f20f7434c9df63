"""Envoy's messages to plain events, and replies to messages; only this package knows their protobuf types."""
