"""Deletes what is older than it is to be kept."""

from __future__ import annotations

from datetime import timedelta

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.store.audit import AuditEvents
from litellm_plugin.store.database import Store


def prune(store: Store, retention: float, now: Clock) -> int:
    """Delete audit events that are older than ``retention``, from the beginning of each chain.

    An event stays as long as an older event of its chain does, even if a clock was set back in
    between: so what is kept of a chain has no gap. Chains that ended and have no events left are
    deleted, too.

    Args:
        store: The store.
        retention: Seconds.
        now: Returns the present time.

    Returns:
        The number of events that were deleted.

    Raises:
        StoreUnavailable: The database can't be used; what was deleted before stays deleted.
    """
    moment = now() - timedelta(seconds=retention)
    return AuditEvents(store).prune(stamp(lambda: moment))
