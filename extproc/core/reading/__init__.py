"""What a response says: its usage out of bytes in any pieces, or that the request did not fit."""
