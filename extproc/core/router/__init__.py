"""One router, for all its exchanges: Placer, from facts to a decision, and Learner, from responses to estimates."""
