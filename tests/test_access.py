"""Permission decisions are used again, and for seconds only."""

from __future__ import annotations

import pytest

from litellm_plugin.access import DECIDED, Access, Permission
from litellm_plugin.accounts.caller import Caller
from litellm_plugin.cache.cache import Cache
from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import Forbidden
from litellm_plugin.identity.principal import UserPrincipal
from tests.identity.doubles import Clock


class Policy:
    """Backstage's permission API, which changes its mind when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = True

    def allowed(self, *_: str) -> bool:
        self.asked += 1
        return self.answer


@pytest.mark.parametrize(("seconds", "kept"), [(3600.0, DECIDED), (1.0, 1.0), (0.0, 0.0)])
def test_a_decision_is_used_again_for_seconds_whatever_is_configured(
    settings: Settings, seconds: float, kept: float
) -> None:
    clock, policy = Clock(1000.0), Policy()
    cache = Cache(seconds, clock=clock)
    access = Access(settings, policy, cache, lambda _user: "token")  # type: ignore[arg-type]
    caller = Caller(UserPrincipal("user:default/bob", None, None, 0.0), None, lambda _ref: None)
    access.require(caller, Permission.KEY_CREATE)
    policy.answer = False
    if kept:
        clock.now += kept - 0.1
        access.require(caller, Permission.KEY_CREATE)
        assert policy.asked == 1
    clock.now += 0.1
    with pytest.raises(Forbidden):
        access.require(caller, Permission.KEY_CREATE)
