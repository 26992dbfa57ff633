"""Vector stores and MCP servers: which of them team admins may give to teams.

Allow-lists and requests name objects by id or by name, which :func:`meant` resolves. LiteLLM
only receives ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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


def vector_stores(rows: Iterable[Json]) -> list[TeamObject]:
    """Read LiteLLM's vector stores; rows without id and name are dropped."""
    return [store for row in rows if (store := vector_store(row))]


def mcp_servers(rows: Iterable[Json]) -> list[TeamObject]:
    """Read LiteLLM's MCP servers; rows without id and name are dropped."""
    return [server for row in rows if (server := mcp_server(row))]


def meant(name: str, objects: Sequence[TeamObject]) -> list[TeamObject]:
    """Return the objects that ``name`` refers to: the one with that id, else all with that name.

    An id takes precedence, so that an object can't pass for another by taking the other's id
    as its name.
    """
    return [each for each in objects if each.id == name] or [
        each for each in objects if name in each.names
    ]


def allowed(
    objects: Sequence[TeamObject], names: Iterable[str], groups: Collection[str] = ()
) -> list[TeamObject]:
    """Return the objects that an allow-list names or that are in one of its access groups."""
    ids = {each.id for name in names for each in meant(name, objects)}
    return [each for each in objects if each.id in ids or not each.groups.isdisjoint(groups)]


class TeamObjects:
    """Lists the objects that team admins may give to teams, by ``litellm.teamAdmin``."""

    def __init__(self, settings: TeamAdminSettings, litellm: LiteLLM, cache: Cache) -> None:
        self._settings = settings
        self._litellm = litellm
        self._cache = cache

    def vector_stores(self, *, fresh: bool = False) -> list[TeamObject]:
        """Return the allowed vector stores; ``fresh`` reads past the cache, as a write must."""
        rows = self._cache.read(("vector-stores",), (), self._litellm.vector_stores, fresh=fresh)
        return allowed(vector_stores(rows), self._settings.allowed_vector_stores)

    def mcp_servers(self, *, fresh: bool = False) -> list[TeamObject]:
        """Return the allowed MCP servers; ``fresh`` as for :meth:`vector_stores`."""
        rows = self._cache.read(("mcp-servers",), (), self._litellm.mcp_servers, fresh=fresh)
        return allowed(
            mcp_servers(rows),
            self._settings.allowed_mcp_servers,
            self._settings.allowed_mcp_access_groups,
        )


def _texts(*values: object) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str) and value)
