"""Counts what one request passes through: calls, files and depth, for a cold and a warm read.

    .venv/bin/python benchmarks/trace.py

Counted are the calls of functions of ``litellm_plugin`` between the WSGI application's first and
last, in every thread; depth is how many of them are open when ``requests`` is asked for the call
to LiteLLM that lies deepest. Upstreams are the stand-ins of the tests, in memory.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from litellm_plugin import create_app  # noqa: E402
from litellm_plugin.config import load_settings  # noqa: E402
from litellm_plugin.config.settings import Settings  # noqa: E402
from tests.apps import Apps  # noqa: E402
from tests.client import JWKS_PATH, PluginClient  # noqa: E402
from tests.fakes import FakeBackstage, FakeKeycloak, FakeLiteLLM, Network  # noqa: E402
from tests.tokens import TokenFactory  # noqa: E402

OVERLAY = "litellm: {service: {rateLimits: false, keyFile: '${PLUGIN_KEY_FILE}'}}"
PACKAGE = f"{ROOT / 'litellm_plugin'}/"
PEOPLE = ("alice", "bob")
ACCOUNT = {
    "user_id": "bob@example.com",
    "user_info": {"user_id": "bob@example.com", "user_role": "internal_user", "teams": []},
    "keys": [],
    "teams": [],
}
PARTS: dict[str, Any] = {
    "/user/info": ACCOUNT,
    "/v2/user/info": ACCOUNT["user_info"],
    "/user/list": {"users": [ACCOUNT["user_info"]], "total": 1, "total_pages": 1},
    "/key/list": {"keys": [], "total_count": 0, "current_page": 1, "total_pages": 0},
    "/v2/team/list": {"teams": [], "total": 0, "page": 1, "total_pages": 0},
}


class Trace:
    """Counts calls while it is installed."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.depth = 0

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take one event of ``sys.setprofile``."""
        if event != "call":
            return
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            self.calls[name.removeprefix(PACKAGE)] += 1
        elif name.endswith("requests/sessions.py") and frame.f_code.co_name == "send":
            self.depth = max(self.depth, _open_calls(frame))


def _open_calls(frame: FrameType | None) -> int:
    depth = 0
    while frame is not None:
        depth += frame.f_code.co_filename.startswith(PACKAGE)
        frame = frame.f_back
    return depth


def _settings(folder: Path) -> Settings:
    """Return the contract's settings, with the cache as it is by default."""
    overlay = folder / "overlay.yaml"
    overlay.write_text(OVERLAY)
    contract = ROOT / "tests" / "contract"
    files = [contract / "base.yaml", contract / "variants" / "full.yaml", overlay]
    return load_settings(files, Apps(folder / "key.json").environ)


def main() -> None:
    """Print a line for the cold and one for the warm ``GET /keys``."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("tempfile.tempdir", folder)
        tokens = TokenFactory()
        litellm, backstage = FakeLiteLLM(), FakeBackstage(tokens)
        Network(litellm, backstage, FakeKeycloak(tokens)).install(patch)
        for path, answer in PARTS.items():
            litellm.get(path, json=answer)
        client = PluginClient(create_app(_settings(Path(folder))))
        backstage.discovers("litellm", lambda: client.get(JWKS_PATH).json)
        alice, headers = ({"Authorization": tokens.authorization(name) or ""} for name in PEOPLE)
        client.get("/config", headers=alice)  # key sets are read, modules imported
        for state in ("cold", "warm"):
            trace = Trace()
            threading.setprofile_all_threads(trace) if sys.version_info >= (3, 12) else (
                threading.setprofile(trace)
            )
            sys.setprofile(trace)
            status = client.get("/keys", headers=headers).status_code
            sys.setprofile(None)
            threading.setprofile(None)
            print(
                f"{state}: {status}, {trace.calls.total()} calls in {len(trace.calls)} files,"
                f" {trace.depth} deep"
            )


if __name__ == "__main__":
    main()
