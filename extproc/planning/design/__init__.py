"""Fleet designs: which ones are compared, how each is optimised, and which one is recommended."""
