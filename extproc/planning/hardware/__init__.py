"""The servers: GPUs and models, the KV cache that they hold, and iteration times."""
