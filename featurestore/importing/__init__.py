"""What other tools write, as artifacts of this one: a file a format, one writer for all."""
