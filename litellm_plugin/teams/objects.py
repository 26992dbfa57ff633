"""Vector stores and MCP servers: which of them team admins may give to teams.

Allow-lists and requests name objects by id or by name, which :func:`meant` resolves. LiteLLM
only receives ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Json, LiteLLM
from litellm_plugin.config.settings import TeamAdmin as TeamAdminSettings
from litellm_plugin.shapes import first, present


@dataclass(frozen=True, slots=True)
class TeamObject:
    """A vector store or an MCP server."""

    shown: Json  # in GET /vector-stores or GET /mcp-servers
    names: frozenset[str]
    groups: frozenset[str] = frozenset()  # access groups of an MCP server

    @property
    def id(self) -> str:
        """LiteLLM's id."""
        return str(self.shown["id"])


def vector_store(row: Json) -> TeamObject | None:
    """Read LiteLLM's row of a vector store; None for a row without id and name."""
    name = first(row.get("vector_store_name"), row.get("name"))
    id_ = first(row.get("vector_store_id"), row.get("id"), name)
    if not isinstance(id_, str):
        return None
    shown = {"id": id_, **present(name=name)}
    return TeamObject(shown, _texts(row.get("vector_store_name"), row.get("name")))


def mcp_server(row: Json) -> TeamObject | None:
    """Read LiteLLM's row of an MCP server; None for a row without id and name."""
    name = first(row.get("alias"), row.get("name"), row.get("server_name"))
    id_ = first(row.get("server_id"), row.get("id"), name)
    if not isinstance(id_, str):
        return None
    return TeamObject(
        {"id": id_, **present(name=name, url=row.get("url"))},
        _texts(row.get("alias"), row.get("server_name"), row.get("name")),
        _texts(*(row.get("mcp_access_groups") or ())),
    )


READERS = {"vector_stores": vector_store, "mcp_servers": mcp_server}


def read(kind: str, rows: Iterable[Json]) -> list[TeamObject]:
    """Read LiteLLM's ``vector_stores`` or ``mcp_servers``; rows without id and name are dropped."""
    return [each for row in rows if (each := READERS[kind](row))]


def meant(name: str, objects: Sequence[TeamObject]) -> list[TeamObject]:
    """Return the objects that ``name`` refers to: the one with that id, else all with that name.

    An id takes precedence, so that an object can't pass for another by taking the other's id
    as its name.
    """
    return [each for each in objects if each.id == name] or [
        each for each in objects if name in each.names
    ]


class TeamObjects:
    """Lists the objects that team admins may give to teams, by ``litellm.teamAdmin``."""

    def __init__(self, settings: TeamAdminSettings, litellm: LiteLLM, cache: Cache) -> None:
        self._cache = cache
        self._rows = {"vector_stores": litellm.vector_stores, "mcp_servers": litellm.mcp_servers}
        self.allow_lists = {
            "vector_stores": settings.allowed_vector_stores,
            "mcp_servers": settings.allowed_mcp_servers,
        }
        self._groups = frozenset(settings.allowed_mcp_access_groups)

    def all(self, kind: str, *, fresh: bool = False) -> list[TeamObject]:
        """Return the objects that the allow-list names or that are in an allowed access group.

        Args:
            kind: ``vector_stores`` or ``mcp_servers``.
            fresh: Whether to read past the cache, as a write must.
        """
        label = kind.replace("_", "-")  # in the metrics
        objects = read(kind, self._cache.read((label,), (), self._rows[kind], fresh=fresh))
        ids = {each.id for name in self.allow_lists[kind] for each in meant(name, objects)}
        return [each for each in objects if each.id in ids or each.groups & self._groups]


def _texts(*values: object) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str) and value)
