"""Learning from the gateway's access log: the evidence that decisions leave in it, and what its entries teach."""
