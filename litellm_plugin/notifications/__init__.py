"""Notices before a budget is spent or a key ends."""
