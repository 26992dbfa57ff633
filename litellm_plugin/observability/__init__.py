"""What an operator sees: logs, audit events, metrics, traces, readiness."""
