"""Envoy's ext_proc messages to plain events, and replies to messages; only this room knows their protobuf."""
