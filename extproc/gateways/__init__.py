"""Gateway configurations: a model of them, checks for traps in them, and rendering of ones that fit the router.

inputs      finds the gateways in files, config dumps and manifests
parsing     reads files and admin pages into values, and into Envoy's messages, that know where they were written
envoy       converts Envoy's own configuration into the model, and says what of it is not followed
kubernetes  converts manifests into the configuration that Istio or Envoy Gateway would generate from them
matching    evaluates conditions on strings, headers and paths
model       what the traps examine
traps       the traps, each found by one small function
findings    runs all traps; report formats the findings
render      writes configurations that fit the router's
"""
