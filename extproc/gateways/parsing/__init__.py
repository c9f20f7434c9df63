"""Configuration files, parsed into values and Envoy's messages that know where they were written."""
