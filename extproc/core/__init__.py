"""The pure heart: facts to budget to decision, usage to learning. No I/O, no clock, no grpc, no prometheus."""
