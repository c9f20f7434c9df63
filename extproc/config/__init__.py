"""The configuration file, decoded once into typed objects."""
