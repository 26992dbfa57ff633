"""The contract's files here are copies; where the originals are at hand, they are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"

FILES = {"people/org.yaml": "backstage/catalog/org.yaml", "base.yaml": "backstage/app-config.yaml"}

needs_originals = pytest.mark.skipif(
    not (SHARED / "contract").is_dir(), reason="../shared is not there to compare with"
)


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@needs_originals
def test_the_cases_are_the_originals() -> None:
    ours, theirs = _contents(HERE / "cases"), _contents(SHARED / "contract" / "cases")
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name]] == []


@needs_originals
def test_the_variants_are_the_originals_and_those_of_our_own_recordings() -> None:
    ours, theirs = _contents(HERE / "variants"), _contents(SHARED / "contract" / "variants")
    assert [name for name in theirs if ours.get(name) != theirs[name]] == []


@needs_originals
@pytest.mark.parametrize(("copy", "original"), sorted(FILES.items()))
def test_a_copied_file_is_the_original(copy: str, original: str) -> None:
    assert (HERE / copy).read_bytes() == (SHARED / original).read_bytes()
