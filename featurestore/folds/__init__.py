"""The assignment of tiles to folds, and where it is kept."""
