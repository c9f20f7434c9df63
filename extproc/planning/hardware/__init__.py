"""What the servers are: GPUs and models, the KV cache they hold, and how long an iteration takes."""
