"""One HTTP exchange as a state machine: events, replies to the gateway, the transition table, and the machine."""
