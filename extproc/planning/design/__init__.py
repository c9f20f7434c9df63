"""Which fleets are compared, how each is made as good as it gets, and what is recommended."""
