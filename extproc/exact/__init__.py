"""Exact token counts with the configured tokenizers (`dualpool[exact]`)."""
