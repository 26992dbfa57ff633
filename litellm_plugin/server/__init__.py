"""gunicorn: its worker, its access log, and the address of the metrics."""
