"""Logs, audit events, metrics, traces and readiness."""
