"""Configurations of gateways: the model of what is in them, the traps in them, and ones that fit the router's.

sources   files and pages of an admin port as plain values that know where they were written
typed     those values as Envoy's own messages, so that a misspelled field is named
envoy     a bootstrap or a config dump to the model
istio, envoy_gateway   manifests to what their control plane would make of them for Envoy, and then to the model
model     what the traps look at
traps     one small function for each
findings  a look at all of them; report writes what was found
"""
