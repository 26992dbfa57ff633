"""``whoami``: what somebody would get, without giving it to them."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.installation import Installation
from tests.fakes import connection_refused


def whoami(installation: Installation, user: str, *, status: int = 0) -> dict[str, Any]:
    result = installation.run("whoami", user, "--json")
    assert result.exit_code == status
    asked = {each.method for each in installation.litellm.asked}
    assert asked <= {"GET"}
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_somebody_litellm_knows(installation: Installation) -> None:
    told = whoami(installation, "alice")
    assert told["user"] == "user:default/alice"
    assert told["litellm_id"] == "alice@example.com"
    assert "group:default/litellm-admins" in told["catalog"]["groups"]
    assert told["role"] is None
    assert told["audit"] is True
    assert told["team_admin"] is True
    assert told["litellm"]["max_budget"] == 10
    assert told["litellm"]["teams"] == ["team-platform"]
    assert told["litellm"]["keys"] == 1
    assert told["first_visit"] is None


def test_a_first_visit_is_told_and_not_made(installation: Installation) -> None:
    told = whoami(installation, "User:default/Carol")
    assert told["role"] == "group:default/ai-power-users"
    assert told["litellm"] is None
    user = told["first_visit"]["user"]
    assert told["first_visit"]["creates"] is True
    assert user["user_id"] == "carol@example.com"
    assert user["models"] == ["gpt-4o-mini"]
    assert user["teams"] == ["team-platform"]
    assert user["metadata"]["backstage_entity"] == "user:default/carol"
    page = installation.run("whoami", "carol").stdout
    assert "A first visit creates the user, with:" in page
    assert "models               gpt-4o-mini" in page


def test_without_provisioning_nobody_is_created(installation: Installation) -> None:
    installation.settings["provisioning"]["enabled"] = False
    assert whoami(installation, "carol")["first_visit"] == {"creates": False, "user": None}
    page = installation.run("whoami", "carol").stdout
    assert "a first visit creates nobody" in page


def test_somebody_the_catalog_does_not_know(installation: Installation) -> None:
    told = whoami(installation, "nobody")
    assert told["catalog"] is None
    assert told["role"] is None
    assert "Not in the catalog" in installation.run("whoami", "nobody").stdout


def test_what_can_t_be_told_is_no_answer(installation: Installation) -> None:
    installation.backstage.replies["*"] = connection_refused()
    told = whoami(installation, "carol", status=1)
    assert told["errors"] == ["The catalog can't tell: Backstage broke off"]
    # Without her groups nobody knows what a first visit would create.
    assert told["first_visit"] is None
    installation.litellm.replies["*"] = connection_refused()
    assert len(whoami(installation, "carol", status=1)["errors"]) == 2


def test_a_name_that_is_none(installation: Installation) -> None:
    for user in ("group:default/platform", "user:default/", "a/b/c"):
        assert installation.run("whoami", user).exit_code == 2
