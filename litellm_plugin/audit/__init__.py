"""Audit events in the store (``litellm.audit.store``): the writer and the pages."""
