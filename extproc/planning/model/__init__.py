"""The closed-form cost model, and what it is asked about."""
