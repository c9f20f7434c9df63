"""Learning from the gateway's access log, whose entries carry the sealed decision and report the usage."""
