"""What was learned, beyond one process: its schema, the file that it is saved to, the store that shares it."""
