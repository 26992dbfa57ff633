"""HTTP clients of LiteLLM and Backstage."""
