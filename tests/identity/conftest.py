from __future__ import annotations

import pytest

from tests.identity.barrier import Barrier


@pytest.fixture
def barrier() -> Barrier:
    return Barrier()
