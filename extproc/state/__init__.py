"""Learned state outside of one process: its schema, the file it is saved to, the store that replicas share."""
