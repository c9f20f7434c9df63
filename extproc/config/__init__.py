"""The configuration file, decoded once into typed settings; all of its faults are reported at once."""
