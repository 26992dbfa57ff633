"""Vector stores and MCP servers: which of them team admins may give to teams.

Allow-lists and requests name them by id or by name; :func:`meant` is what tells which one is
meant. LiteLLM is only ever sent ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from litellm_plugin import shapes
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.config.settings import TeamAdmin as Rules


@dataclass(frozen=True, slots=True)
class Row:
    """A vector store or an MCP server.

    Attributes:
        shown: One of ``GET /vector-stores`` or ``GET /mcp-servers``.
        names: What it is called, besides its id.
        groups: The access groups that it is in; vector stores have none.
    """

    shown: Json
    names: frozenset[str]
    groups: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        """LiteLLM's id."""
        id_: str = self.shown["id"]
        return id_


def vector_stores(rows: Iterable[Json]) -> list[Row]:
    """Read LiteLLM's vector stores; rows without id and name are dropped."""
    return [
        Row(shown, _texts(row.get("vector_store_name"), row.get("name")))
        for row in rows
        if (shown := shapes.vector_store(row)) is not None
    ]


def mcp_servers(rows: Iterable[Json]) -> list[Row]:
    """Read LiteLLM's MCP servers; rows without id and name are dropped."""
    return [
        Row(
            shown,
            _texts(row.get("alias"), row.get("server_name"), row.get("name")),
            _texts(*(row.get("mcp_access_groups") or ())),
        )
        for row in rows
        if (shown := shapes.mcp_server(row)) is not None
    ]


def meant(name: str, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that ``name`` means: the one of that id, else all of that name.

    The id goes first: a store that somebody has named like another one's id is not that one.
    """
    return [row for row in rows if row.id == name] or [row for row in rows if name in row.names]


def allowed(rows: Sequence[Row], names: Iterable[str], groups: Collection[str] = ()) -> list[Row]:
    """Return the rows that an allow-list means, and those of the access groups, in their order."""
    ids = {row.id for name in names for row in meant(name, rows)}
    return [row for row in rows if row.id in ids or not row.groups.isdisjoint(groups)]


class TeamObjects:
    """Reads what team admins may give.

    Args:
        rules: The allow-lists of ``litellm.teamAdmin``.
        litellm: The client.
        cache: The cache.
    """

    def __init__(self, rules: Rules, litellm: LiteLLM, cache: Cache) -> None:
        self._rules = rules
        self._litellm = litellm
        self._cache = cache

    def vector_stores(self, *, fresh: bool = False) -> list[Row]:
        """Return the vector stores that may be given.

        Args:
            fresh: Ask LiteLLM now, as whoever decides about a write should.
        """
        rows = self._cache.read(("vector-stores",), (), self._litellm.vector_stores, fresh=fresh)
        return allowed(vector_stores(rows), self._rules.allowed_vector_stores)

    def mcp_servers(self, *, fresh: bool = False) -> list[Row]:
        """Return the MCP servers that may be given; ``fresh`` as for :meth:`vector_stores`."""
        rows = self._cache.read(("mcp-servers",), (), self._litellm.mcp_servers, fresh=fresh)
        return allowed(
            mcp_servers(rows),
            self._rules.allowed_mcp_servers,
            self._rules.allowed_mcp_access_groups,
        )


def _texts(*values: object) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str) and value)
