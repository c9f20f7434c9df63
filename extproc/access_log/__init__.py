"""Learning from the gateway's access log: decisions leave evidence in it, and its entries report the usage."""
