"""Reading of responses from arbitrary chunks: their usage, or the refusal of a request that is too long."""
