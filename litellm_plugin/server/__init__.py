"""The worker and the access log of gunicorn; the address of the metrics."""
