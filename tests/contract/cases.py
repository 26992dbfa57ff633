"""The contract's cases: where they are, and what their fields may be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

FIELDS = frozenset(
    {
        "id",
        "variant",
        "as",
        "policy",
        "request",
        "litellm",
        "expect",
        "original",
        "writes",
        "reads",
    }
)
REQUEST = frozenset({"method", "path", "json", "raw", "headers"})
ORIGINAL = frozenset({"status", "headers", "json", "text"})
OURS = frozenset(
    {
        "status",
        "status_in",
        "error",
        "json_subset",
        "json_path",
        "absent",
        "absent_in",
        "json_sum",
        "error_contains",
        "error_not_contains",
        "not_in_body",
        "location",
        "writes",
        "writes_paths",
        "writes_like",
        "last_write",
        "no_write_to",
        "no_write_contains",
    }
)
EXPECT = {
    "exact": frozenset[str](),
    "status": frozenset[str](),
    "ours": OURS,
    "skip": frozenset[str](),
}
CALLERS_NAMED = frozenset(
    {
        "raw",
        "obo",
        "limited",
        "expired",
        "alg-none",
        "hs256",
        "wrong-aud",
        "wrong-typ",
        "other-key",
        "uncatalogued",
        "keycloak",
    }
)


@dataclass(frozen=True)
class Case:
    """One conversation, as recorded; the fields are described in the contract's README."""

    area: str
    name: str
    variant: str
    who: str
    policy: str
    request: dict[str, Any]
    litellm: list[dict[str, Any]]
    original: dict[str, Any]
    writes: list[dict[str, Any]]
    reads: int
    parity: str
    expect: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.area}-{self.name}"

    @classmethod
    def from_json(cls, area: str, raw: dict[str, Any]) -> Case:
        """Read one case.

        Raises:
            ValueError: A field is unknown, so it would not be checked, or a needed one is missing.
        """
        where = f"{area}-{raw.get('id')}"
        expect = dict(raw["expect"])
        parity = expect.pop("parity")
        if parity not in EXPECT:
            raise ValueError(f"{where}: no parity {parity!r}")
        for name, given, known in (
            ("case", raw, FIELDS),
            ("request", raw["request"], REQUEST),
            ("original", raw["original"], ORIGINAL),
            ("expect", expect, EXPECT[parity]),
        ):
            if unknown := given.keys() - known:
                raise ValueError(f"{where}: {name} has unknown {', '.join(sorted(unknown))}")
        kind, colon, _ = raw["as"].partition(":")
        if colon and kind not in CALLERS_NAMED:
            raise ValueError(f"{where}: nobody is {raw['as']!r}")
        if parity == "ours" and not expect.keys() & {"status", "status_in"}:
            raise ValueError(f"{where}: expects no status")
        return cls(
            area=area,
            name=raw["id"],
            variant=raw["variant"],
            who=raw["as"],
            policy=raw.get("policy") or "",
            request=raw["request"],
            litellm=raw["litellm"],
            original=raw["original"],
            writes=raw["writes"],
            reads=raw["reads"],
            parity=parity,
            expect=expect,
        )


def load(folder: Path) -> list[Case]:
    """Return all cases of a folder's ``<area>.json`` files."""
    return [
        Case.from_json(file.stem, raw)
        for file in sorted(folder.glob("*.json"))
        for raw in json.loads(file.read_text("utf-8"))
    ]
