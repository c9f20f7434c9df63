"""Gateway configurations: a model of them, checks for traps in them, and rendering of ones that fit the router.

sources   reads files and admin pages into plain values that know where they were written
typed     turns those values into Envoy's own messages and reports misspelled fields
spelling  rewrites what Envoy accepts and protobuf's Python parser does not
envoy     converts a bootstrap or a config dump into the model
out_of_sight   says what of it is not followed
overrides   what routes say of the filters
istio, envoy_gateway   convert manifests into the bootstrap that the control plane would generate from them
model     what the traps examine
traps     the traps, each found by one small function
findings  runs all traps; report formats the findings
render    writes configurations that fit the router's
"""
