"""The rules: who may do what, and what it means."""
