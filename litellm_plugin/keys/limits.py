"""Which ceilings of keys hold for whom, and the lock under which keys are counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.accounts.directory import Directory
from litellm_plugin.cache.cache import Cache
from litellm_plugin.clients.litellm import Json
from litellm_plugin.clock import Clock
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import PluginError
from litellm_plugin.keys import policy as key_policy
from litellm_plugin.keys.policy import Policy
from litellm_plugin.models import Models


class Busy(PluginError):
    """Too many requests of one person want to be counted at a time."""

    status = 503


class KeyRules:
    """Finds the ceilings that hold for a caller or an account.

    Args:
        settings: ``litellm.keyPolicy`` and the roles of provisioning.
        directory: Knows who may be behind a LiteLLM id.
        models: Tells the access groups of models.
        cache: Holds the lock for counting.
        now: The present time, in UTC.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        models: Models,
        cache: Cache,
        now: Clock,
    ) -> None:
        self._common = settings.key_policy
        self._provisioning = settings.provisioning
        self._directory = directory
        self._models = models
        self._cache = cache
        self._now = now
        self._by_role = key_policy.by_role(settings.provisioning)
        self.limits_budget = self._common.max_budget is not None or any(
            role.key_policy.get("max_budget") is not None for role in settings.provisioning.roles
        )

    def of(self, caller: Caller) -> Policy:
        """Return the ceilings of a user.

        Raises:
            BackstageUnavailable: They depend on the user's groups, and the catalog can't be asked.
        """
        return self._of_groups(caller.entity.groups if self._by_role else ())

    def of_id(self, user_id: str | None) -> Policy:
        """Return the ceilings of whoever in the catalog has a LiteLLM id, of nobody the common.

        For callers whose groups nobody has proven: if it may be several people, what holds for
        each of them holds.

        Raises:
            BackstageUnavailable: They depend on groups, and the catalog can't be asked.
        """
        if not self._by_role or not user_id:
            return self._of_groups(())
        memberships = [person.groups for person in self._directory.of_id(user_id)]
        return key_policy.strictest(list(map(self._of_groups, memberships or [frozenset()])))

    def groups_of(self, model: str) -> Collection[str]:
        """Return the access groups of a model; none where LiteLLM can't tell."""
        groups: set[str] = set()
        for row in self._models.all():
            if row.get("model_name") == model and isinstance(row.get("access_groups"), list):
                groups.update(name for name in row["access_groups"] if isinstance(name, str))
        return groups

    @contextmanager
    def counted(
        self, policy: Policy, user_id: str, keys: Callable[[], list[Json]]
    ) -> Iterator[None]:
        """Let one more key become active inside, and nobody else make one meanwhile.

        Args:
            policy: The ceilings that hold.
            user_id: LiteLLM id of the owner.
            keys: Reads the owner's keys as they are right now.

        Raises:
            Forbidden: There are as many as there may be.
            Busy: Others are making keys for the same owner, one after the other.
        """
        if policy.active_keys is None:
            yield
            return
        with self._cache.lock(f"active keys of {user_id}", on_all_hosts=True) as held:
            if not held:
                raise Busy(
                    "This user's active keys can't be counted right now: another key is being"
                    " made, or the service has no lock (its log says why). Try again in a moment."
                )
            policy.refuse_more(keys(), self._now())
            yield

    def _of_groups(self, groups: Collection[str]) -> Policy:
        return key_policy.policy_for(self._common, self._provisioning, groups)
