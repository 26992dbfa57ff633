"""gunicorn's worker and access log; the server of the metrics."""
