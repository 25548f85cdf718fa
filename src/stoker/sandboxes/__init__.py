"""Wing: where code runs. One folder a backend, all held to `contract` by one suite."""
