"""Configurations of gateways and servers that fit one of the router, with why they are so.

numbers   what follows from the router's configuration, and how
envoy     a bootstrap, of Envoy's own message types; chain, tables and servers are its parts
istio, envoy_gateway   manifests, of the same parts
vllm      how to start the pools' servers
comments  why each setting is as it is
text      all of it as YAML
"""
