"""Rendering of gateway and server configurations that fit the router's, with comments that explain them.

numbers   computes limits and timeouts from the router's configuration
envoy     builds a bootstrap from Envoy's own message types; chain, tables and servers build its parts
istio, envoy_gateway   build manifests from the same parts
vllm      writes the commands that start the pools' servers
comments  says why each setting is as it is
text      writes all of it as YAML
"""
