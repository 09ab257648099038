"""A held-out set: which groups are trained on and which are tested, and the tiles of both."""
