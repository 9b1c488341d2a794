"""The runs as stages of a DVC pipeline: what its files say, what is stale, and what is recorded."""
