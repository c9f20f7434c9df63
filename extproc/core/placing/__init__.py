"""From an estimate to a pool: the token budget, when it is known early, and the policy over the pools."""
