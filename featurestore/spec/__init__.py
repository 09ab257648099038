"""What a user asks for, as plain values: rules, artifacts, numbers within bounds."""
