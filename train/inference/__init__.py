"""A whole cohort predicted in a stream."""
