"""The closed-form cost model and its inputs."""
