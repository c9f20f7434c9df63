"""The paper's evaluation, replayed beside its own tables."""
