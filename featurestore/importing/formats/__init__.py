"""A file a tool: which slides its output holds, and how their tiles are read."""
