from tests.config.conftest import load, write
from tests.postgres import postgres

__all__ = ["load", "postgres", "write"]
