"""Usage reports, made of LiteLLM's daily activity."""
