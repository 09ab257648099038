"""Predictions as maps that a pathologist opens."""
