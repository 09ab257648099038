"""Views as pure functions from Ibis tables to Ibis tables."""
