"""The ways out: LiteLLM and Backstage over HTTP."""
