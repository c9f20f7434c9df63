"""From an estimate to a pool: the token budget, the early rule, the policy over the pools, and spillover."""
