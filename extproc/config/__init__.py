"""The configuration file, decoded once into typed settings; what is wrong with it is reported all at once."""
