"""What an operator sees of a request: its id, and what is told of it."""
