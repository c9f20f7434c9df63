"""From facts to a decision, and from a response to learning: what one router knows, for all its exchanges."""
