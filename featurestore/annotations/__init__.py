"""Annotations: polygons that pathologists draw, and what share of each tile they cover."""
