"""The router shared by all exchanges: its Placer decides where requests go, its Learner learns from responses."""
