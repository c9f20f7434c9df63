"""Prompt tokens from bytes, learned from usage; each estimator stands behind the same Protocol."""
