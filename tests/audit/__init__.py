"""Tests of the audit events in the store."""
