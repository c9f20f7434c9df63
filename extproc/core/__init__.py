"""The pure core: facts to budget to decision, usage to learning. No I/O, no clock, no grpc, no prometheus."""
