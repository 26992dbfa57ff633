"""LiteLLM accounts: look-up, ownership and provisioning."""
