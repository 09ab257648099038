"""Training sets on disk, named by all that determines them."""
