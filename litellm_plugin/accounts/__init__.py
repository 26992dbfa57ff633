"""LiteLLM users: whose account it is, how it is found, and what a first visit creates."""
