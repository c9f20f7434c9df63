"""One HTTP exchange as a state machine: its events, its replies to the gateway, its table, the machine itself."""
