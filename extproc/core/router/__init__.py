"""One router, for all its exchanges: its Placer decides where requests go, its Learner learns from responses."""
