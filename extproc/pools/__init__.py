"""The models and the load of each pool; the only package that queries the pools' servers."""
