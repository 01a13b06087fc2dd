"""One training run, from a configuration and pictures to weights."""
