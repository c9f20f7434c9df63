"""Exact counts of tokens: the tokenizers that are configured (`dualpool[exact]`)."""
