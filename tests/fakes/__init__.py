"""The hosts this service talks to, in memory: LiteLLM, Backstage and Keycloak."""

from tests.fakes.backstage import FakeBackstage, FakeKeycloak, People, Policy
from tests.fakes.litellm import Call, FakeLiteLLM, Rule
from tests.fakes.network import Asked, Network, Reply, connection_refused, dropped

__all__ = [
    "Asked",
    "Call",
    "FakeBackstage",
    "FakeKeycloak",
    "FakeLiteLLM",
    "Network",
    "People",
    "Policy",
    "Reply",
    "Rule",
    "connection_refused",
    "dropped",
]
