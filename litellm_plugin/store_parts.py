"""The parts of the plugin that use the store; imported only where something is on that needs it."""

from __future__ import annotations

from functools import partial

from litellm_plugin.accounts.directory import Directory
from litellm_plugin.accounts.leavers import Leavers
from litellm_plugin.accounts.sync import Sync
from litellm_plugin.accounts.visits import Visits
from litellm_plugin.audit.reader import AuditReader
from litellm_plugin.audit.writer import AuditWriter
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import LiteLLM
from litellm_plugin.clock import Clock
from litellm_plugin.config import ConfigError
from litellm_plugin.config.settings import Settings
from litellm_plugin.models import Models
from litellm_plugin.plugin import StoreParts
from litellm_plugin.store import runs
from litellm_plugin.store.adopted import AdoptedAccounts
from litellm_plugin.store.audit import AuditEvents
from litellm_plugin.store.database import Store
from litellm_plugin.store.grants import Grants
from litellm_plugin.store.leavers import LeaverTable
from litellm_plugin.store.usage_days import UsageDays
from litellm_plugin.usage.stored_days import StoredDays


def store_of(settings: Settings) -> Store:
    """Return the store, which has no connection yet.

    Raises:
        ConfigError: The package psycopg is not installed.
    """
    if settings.database.client == "pg":
        try:
            import litellm_plugin.store.postgres  # noqa: F401, PLC0415 - an extra
        except ImportError as exc:
            wanted = "needs the Python package psycopg; install litellm-plugin[postgres]"
            raise ConfigError([f"backend.database.client: pg {wanted}"]) from exc
    return Store(settings.database)


def build(
    settings: Settings,
    litellm: LiteLLM,
    cache: Cache,
    directory: Directory,
    models: Models,
    now: Clock,
) -> StoreParts:
    """Make the parts that the settings turn on.

    Raises:
        ConfigError: The package psycopg is not installed.
    """
    store = store_of(settings)
    parts = StoreParts(
        store=store,
        works=partial(runs.publish, store),
        record_adopted=AdoptedAccounts(store, now).record,
    )
    if settings.offboarding.enabled:
        parts.leavers = Leavers(LeaverTable(store), directory, settings.user_id_domain)
    if settings.provisioning.sync.enabled:
        grants = Grants(store, now)
        parts.sync = Sync(settings, litellm, cache, directory, models, grants)
        parts.visits = Visits(parts.sync, settings.provisioning.sync.visit_interval)
    if settings.audit.store:
        parts.audit_writer = AuditWriter(AuditEvents(store), now, settings.audit.retention)
        parts.audit_reader = AuditReader(litellm, parts.audit_writer)
    if settings.usage.store:
        parts.stored_days = partial(StoredDays, UsageDays(store), now)
    return parts
