"""Checks of the store."""

from __future__ import annotations

from litellm_plugin.cli.checks import Result, failed, ok, skipped, warning
from litellm_plugin.cli.world import World
from litellm_plugin.store import runs
from litellm_plugin.store.database import StoreUnavailable

_OFF = "Nothing that is on has a store"
_AT_START = "The service makes it when it starts."


def works(world: World) -> Result:
    """Check that the store can be read and written, and has the tables of this version."""
    store, database = world.plugin.store, world.settings.database
    if store is None:
        return skipped(_OFF)
    try:
        if database.file is not None and not database.file.exists():
            return warning(f"{database.name} is not there yet.", _AT_START)
        found, newest = store.versions()
        if found is None:
            return warning(f"{database.name} has no tables yet.", _AT_START)
        if found < newest:
            text = f"{database.name} has tables of version {found}; this package has {newest}."
            return warning(text, "The service changes them when it starts.")
        runs.check_writable(store)
        if store.open_to_others:
            text = f"{database.name} names people, and other users of this host can open it."
            return warning(text, f"Run chmod 600 {database.file}*")
    except (StoreUnavailable, OSError) as exc:
        remedy = "Start the database, or correct backend.database and the user's rights."
        if database.client == "pg" and database.ensure_exists:
            remedy += " The service makes a missing database when it starts."
        return failed(f"{str(exc).removesuffix('.')}.", remedy)
    finally:
        store.close()
    return ok(f"{database.name}: readable, writable, tables of version {found}")


def replicas(world: World) -> Result:
    """Check that replicas that share a cache or keys share the store, too."""
    settings = world.settings
    if not settings.uses_store:
        return skipped(_OFF)
    if settings.database.client == "pg":
        return ok("Replicas share the store")
    signs = {
        f"backend.cache.store: {settings.cache.store}": settings.cache.connection,
        "backend.auth.pluginKeyStore: static": settings.plugin_keys,
    }
    found = [setting for setting, value in signs.items() if value]
    if not found:
        return ok("The store is for one replica")
    return warning(
        f"The store is a file of this host, and {' and '.join(found)} is for several replicas.",
        "Several replicas need PostgreSQL (backend.database.client: pg): with a file each has a "
        "store of its own, and jobs run once for each.",
    )
