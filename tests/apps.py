"""Applications under the contract's settings."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from flask import Flask

from litellm_plugin import create_app
from litellm_plugin.config import load_settings
from litellm_plugin.config.settings import MemberBreakdown, Settings, TeamUsage
from tests.fakes.litellm import BASE_URL, MASTER_KEY

CONTRACT = Path(__file__).parent / "contract"


class Apps:
    """Settings and applications by variant, each made once.

    Args:
        key_file: Where the applications keep the key they sign with.

    Attributes:
        environ: The variables that the contract's settings name.
    """

    def __init__(self, key_file: Path) -> None:
        self.environ = {
            "BACKSTAGE_PORT": "7007",
            "KEYCLOAK_BASE": "http://127.0.0.1:7080",
            "LITELLM_BASE_URL": BASE_URL,
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "PLUGIN_KEY_FILE": str(key_file),
            "RIG_SHARE": str(CONTRACT),
        }
        self._settings: dict[str, Settings] = {}
        self._apps: dict[str, Flask] = {}

    def settings(self, variant: str = "full") -> Settings:
        """Return the settings of ``contract/variants/<variant>.yaml``, over the base ones."""
        if variant not in self._settings:
            files = ("base.yaml", f"variants/{variant}.yaml", "overlay.yaml")
            self._settings[variant] = load_settings(
                [CONTRACT / file for file in files], self.environ
            )
        return self._settings[variant]

    def app(self, variant: str = "full") -> Flask:
        """Return the one application of a variant; it may be as old as the test run."""
        if variant not in self._apps:
            self._apps[variant] = create_app(self.settings(variant))
        return self._apps[variant]

    @cached_property
    def whole(self) -> Flask:
        """The one application with the features that the contract's settings leave off."""
        breakdown = TeamUsage(MemberBreakdown(enabled=True))
        return create_app(replace(self.settings(), team_usage=breakdown))
