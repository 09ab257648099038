"""Processes that act as one, the state of a fit, and how a run ends."""
