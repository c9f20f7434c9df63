"""What was learned, outside of memory."""
