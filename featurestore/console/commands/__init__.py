"""What may be typed: the arguments of each command, apart from the work that it does."""
