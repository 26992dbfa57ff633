"""Authentication: tokens, key sets, and our own plugin tokens."""
