"""What is remembered for a few seconds, and how a write makes it forgotten."""
