"""The configuration: its schema, its layers, what it must not say."""
