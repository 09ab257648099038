"""What artifacts must be before any view is built on them."""
