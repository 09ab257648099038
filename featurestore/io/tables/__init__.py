"""Tables whose log, not the folder, says which files and rows count: Delta Lake, Iceberg.

See docs/decisions/032-tables.md.
"""
