"""Who is asking: tokens, key sets, and our own identity."""
