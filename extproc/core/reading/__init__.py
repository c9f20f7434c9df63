"""Reading responses: their usage out of bytes in any pieces, or the refusal of a request that is too long."""
