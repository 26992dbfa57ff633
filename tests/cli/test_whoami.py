"""``whoami``: what somebody would get, without giving it to them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.installation import Installation
from tests.fakes import connection_refused
from tests.fakes.network import Reply


def whoami(installation: Installation, user: str, *, status: int = 0) -> dict[str, Any]:
    told = installation.told("whoami", user, status=status)
    assert {each.method for each in installation.litellm.asked} <= {"GET"}
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
    assert "A first visit creates none" in page


def test_somebody_the_catalog_does_not_know(installation: Installation) -> None:
    told = whoami(installation, "zzz", status=1)
    assert told["errors"] == ["user:default/zzz is not in the catalog."]
    (error,) = whoami(installation, "alcie", status=1)["errors"]
    assert error.endswith("(did you mean alice?).")
    assert told["catalog"] is None
    assert told["role"] is None
    assert "Not in the catalog" in installation.run("whoami", "zzz").stdout


def test_what_can_t_be_told_is_no_answer(installation: Installation) -> None:
    installation.backstage.replies["*"] = connection_refused()
    told = whoami(installation, "carol", status=1)
    assert told["errors"] == ["The catalog failed: Backstage broke off; run litellm-plugin doctor"]
    # Without her groups nobody knows what a first visit would create.
    assert told["first_visit"] is None
    installation.litellm.replies["*"] = connection_refused()
    assert len(whoami(installation, "carol", status=1)["errors"]) == 2
    installation.backstage.replies["*"] = Reply(401)
    (error, _) = whoami(installation, "carol", status=1)["errors"]
    refused = "The catalog failed: Backstage does not accept this service's token (401)"
    assert error == f"{refused}; run litellm-plugin doctor"


def test_a_name_that_is_none(installation: Installation) -> None:
    for user in ("group:default/platform", "user:default/", "a/b/c"):
        assert installation.run("whoami", user).exit_code == 2


def adopted(installation: Installation, **over: Any) -> str:
    """LiteLLM has carol's e-mail under another id, which is returned."""
    user = {"user_id": "sso-1", "user_email": "carol.clark@example.com", "auto_create_key": False}
    installation.standin.user_new({**user, **over})
    return "sso-1"


@pytest.mark.parametrize("provisioning", [True, False])
def test_an_account_that_is_found_by_its_email(
    installation: Installation, *, provisioning: bool
) -> None:
    user_id = adopted(installation, user_role="proxy_admin")
    installation.settings["provisioning"]["enabled"] = provisioning
    told = whoami(installation, "carol")
    assert told["litellm_id"] == "carol@example.com"
    assert told["litellm"]["user_id"] == user_id
    assert told["litellm"]["administrator"] is True
    assert told["first_visit"] is None
    assert f"e-mail, as {user_id}" in installation.run("whoami", "carol").stdout


def test_an_account_that_the_service_refuses(installation: Installation) -> None:
    adopted(installation, metadata={"backstage_entity": "user:default/bob"})
    told = whoami(installation, "carol")
    assert told["litellm"] is None
    assert told["first_visit"] is None
    assert "made for another" in told["refused"]
    assert "Refused (409)" in installation.run("whoami", "carol").stdout


def test_a_name_whose_id_is_reserved(installation: Installation) -> None:
    installation.settings["service"]["reservedUserIds"] = ["alice@example.com"]
    told = whoami(installation, "alice")
    assert told["catalog"] is not None
    assert told["litellm"] is None
    assert "reserved" in told["refused"]
