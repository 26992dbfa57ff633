"""The commands ``login``, ``key`` and ``logout``, on a developer's machine.

These modules read no configuration of the service, and import none of its libraries: no flask,
sqlalchemy, pydantic, alembic, gunicorn, prometheus_client or limits.
"""
