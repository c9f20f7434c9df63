"""Envoy's ext_proc messages to plain events and back; the only room that knows protobuf."""
