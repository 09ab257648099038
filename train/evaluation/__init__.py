"""From predictions to metrics with intervals: pure functions."""
