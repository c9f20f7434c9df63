"""A replay of the paper's evaluation, next to its own tables."""
