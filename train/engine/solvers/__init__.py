"""Heads without epochs: L-BFGS, closed forms, nearest neighbours."""
