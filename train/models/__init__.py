"""Networks: built, saved, loaded, applied."""
