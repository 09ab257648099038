"""Predictions as tables and files."""
