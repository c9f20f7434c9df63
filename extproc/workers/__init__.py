"""Several processes that are one router: a supervisor, and workers, each an ext_proc endpoint of its own."""
