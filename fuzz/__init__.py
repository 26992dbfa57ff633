"""Fuzz targets: what any input must not do; see README.md here."""
