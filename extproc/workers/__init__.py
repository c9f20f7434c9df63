"""Several processes as one router: a supervisor, and workers that are each an ext_proc endpoint of their own."""
