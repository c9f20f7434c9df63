"""A router that runs as several processes: a supervisor, and workers that each serve their own ext_proc
endpoint.
"""
