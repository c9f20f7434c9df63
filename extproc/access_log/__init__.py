"""Learning from the gateway's access log: what a decision leaves in it, and what comes back with the usage."""
