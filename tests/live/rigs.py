"""The rigs of ``../shared``: the real LiteLLM, the real Backstage and a stand-in for Keycloak."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import requests

from tests.deployed import free_port
from tests.live.web import Client, eventually, json_of

REPO = Path(__file__).parents[2]
SHARED = REPO.parent / "shared"

MASTER_KEY = "sk-rig-master"
USER_ID_DOMAIN = "example.com"
STATIC_TOKEN = "rig-static-full-access-token"

LITELLM_PORT = int(os.environ.get("LIVE_LITELLM_PORT", "4210"))
BACKSTAGE_PORT = int(os.environ.get("LIVE_BACKSTAGE_PORT", "7310"))
KEYCLOAK_PORT = int(os.environ.get("LIVE_KEYCLOAK_PORT", "7390"))

# Which versions the rigs run: their own variables, which ``up`` reads from the environment.
LITELLM_VERSION = os.environ.get("LITELLM_VERSION") or "1.106.2"

INSTALLING = 1200.0  # seconds; what a first start on a new machine may take
RUNNING = 60.0  # seconds, for any other command


def run(program: Path, *arguments: str, env: Mapping[str, str], limit: float = RUNNING) -> str:
    """Run a program of a rig and return what it printed.

    Args:
        program: Its path.
        arguments: What it is given.
        env: Variables beside those of this process.
        limit: Seconds it may take.
    """
    done = subprocess.run(
        [str(program), *arguments],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, f"{program} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def answers(url: str) -> bool:
    """Tell whether there is a server that says that it is well."""
    try:
        return Client(url).ask("GET", "", timeout=2).status_code == 200
    except requests.RequestException:
        return False


def with_links(folder: Path, cache: Path) -> Path:
    """Return a rig's folder, or a copy of it where its symbolic links came as text files.

    git without ``core.symlinks``, and some archives, write a file that holds the link's target.

    Args:
        folder: The rig's; only read.
        cache: Where a copy is kept: what is started from it goes on after the tests.
    """
    flat = [
        file
        for file in folder.glob("locks/*.lock")
        if not file.is_symlink()
        and file.stat().st_size < 100  # a lock has a hundred lines
        and (file.parent / file.read_text().strip()).is_file()
    ]
    if not flat:
        return folder
    contents = sha256()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        contents.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
    copy = cache / contents.hexdigest()[:16]
    if not copy.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache)) / folder.name
        shutil.copytree(folder, made, symlinks=True)
        for file in flat:
            link = made / file.relative_to(folder)
            target = link.read_text().strip()
            link.unlink()
            link.symlink_to(target)
        made.rename(copy)  # whole at once: another suite may begin at the same time
        made.parent.rmdir()
    return copy


class LiteLLMRig:
    """The proxy, asked directly: as its admin, or with a virtual key."""

    url = f"http://127.0.0.1:{LITELLM_PORT}"

    def __init__(self) -> None:
        self.admin = Client(self.url, MASTER_KEY)
        home = os.environ.get("LITELLM_RIG") or Path.home() / ".cache" / "litellm-rig"
        self._folder = with_links(SHARED / "litellm", Path(home) / "checkouts")
        self._env = {
            "LITELLM_PORT": str(LITELLM_PORT),
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "LITELLM_VERSION": LITELLM_VERSION,
        }

    @property
    def running(self) -> bool:
        return answers(f"{self.url}/health/readiness")

    def up(self) -> None:
        run(self._folder / "up", env=self._env, limit=INSTALLING)

    def down(self) -> None:
        run(self._folder / "down", env=self._env)

    def empty(self) -> None:
        """Take everything out, and put in what the settings name."""
        for known in json_of(self.admin.get("/v1/mcp/server")):
            # LiteLLM keeps these in memory too, where emptying the database does not reach.
            self.admin.delete(f"/v1/mcp/server/{known['server_id']}")
        run(self._folder / "reset", env=self._env)
        for team_id in ("team-guests", "team-ml"):
            json_of(self.admin.post("/team/new", {"team_id": team_id, "team_alias": team_id}))
        server = {"server_id": "rig_tools", "alias": "rig_tools", "transport": "http"}
        address = {"server_name": "rig_tools", "url": "http://127.0.0.1:9/mcp"}
        json_of(self.admin.post("/v1/mcp/server", {**server, **address}), 201)
        store = {"vector_store_id": "vs-rig-docs", "vector_store_name": "Docs"}
        json_of(self.admin.post("/vector_store/new", {**store, "custom_llm_provider": "openai"}))

    def sql(self, statement: str) -> None:
        """Change LiteLLM's database, in which the API can't write to the past."""
        script = '. "$0/lib.sh"; use_running_version; sql -d "$DB" -c "$1"'
        run(Path("/bin/bash"), "-c", script, str(self._folder), statement, env=self._env)

    def user(self, user_id: str) -> dict[str, Any] | None:
        """Return ``/user/info``: ``user_info``, ``keys`` and ``teams``; None for nobody."""
        response = self.admin.get("/user/info", user_id=user_id)
        return None if response.status_code == 404 else dict(json_of(response))

    def keys_of(self, user_id: str) -> list[str]:
        """Return the hashes of a user's keys; none where there is no such user."""
        user = self.user(user_id)
        return sorted(key["token"] for key in user["keys"]) if user else []

    def key(self, token: str) -> dict[str, Any]:
        """Return what LiteLLM knows of a key."""
        return dict(json_of(self.admin.get("/key/info", key=token))["info"])

    def deleted(self, token: str) -> bool:
        """Tell whether there is no such key: 1.81.14 forgets it, later versions archive it."""
        response = self.admin.get("/key/info", key=token)
        return response.status_code == 404 or json_of(response)["info"].get("status") == "deleted"

    def team(self, team_id: str) -> dict[str, Any] | None:
        """Return a team's row, or None where there is none."""
        response = self.admin.get("/team/info", team_id=team_id)
        return None if response.status_code == 404 else dict(json_of(response)["team_info"])

    def complete(self, secret: str, model: str = "gpt-4o-mini") -> requests.Response:
        """Ask a model something, with a virtual key."""
        question = {"model": model, "messages": [{"role": "user", "content": "Hello?"}]}
        return Client(self.url, secret).post("/chat/completions", question)

    def refuses_model(self, secret: str, model: str) -> bool:
        """Tell whether a key may not use a model; LiteLLM 1.81.14 answers 401, later ones 403."""
        answer = self.complete(secret, model)
        refused = answer.status_code in {401, 403}
        return refused and answer.json()["error"]["type"].endswith("_model_access_denied")


class BackstageRig:
    """Backstage, with its own sign-in and policy, and a service in the plugin's place.

    Args:
        service_url: The plugin's base URL, ``/api/litellm`` included.
    """

    url = f"http://127.0.0.1:{BACKSTAGE_PORT}"

    def __init__(self, service_url: str) -> None:
        self._folder = SHARED / "backstage"
        self._env = {
            "BACKSTAGE_PORT": str(BACKSTAGE_PORT),
            "KEYCLOAK_PORT": str(KEYCLOAK_PORT),
            "LITELLM_BASE_URL": LiteLLMRig.url,
            "LITELLM_MASTER_KEY": MASTER_KEY,
            "LITELLM_USER_ID_DOMAIN": USER_ID_DOMAIN,
            "LITELLM_FLASK_URL": service_url,
        }

    @property
    def running(self) -> bool:
        return answers(f"{self.url}/.backstage/health/v1/readiness")

    def up(self) -> None:
        try:
            run(self._folder / "up", env=self._env, limit=INSTALLING)
        except AssertionError:
            # On a busy machine it may look for its process before there is one.
            run(self._folder / "up", env=self._env, limit=INSTALLING)

    def down(self) -> None:
        run(self._folder / "down", "--keycloak", env=self._env)

    def policy(self, rules: str = "") -> None:
        """Set the permission policy, ``litellm.key.*@bob``; allow everything by default."""
        run(self._folder / "policy", rules, env=self._env)

    def sign_in(self, who: str, *, uncatalogued: bool = False) -> str:
        """Return a user token, issued by Backstage's own auth backend.

        Args:
            who: A name in the default namespace, or an entity ref.
            uncatalogued: Whether the catalog need not know them.
        """
        headers = {"x-rig-user": who if ":" in who else f"user:default/{who}"}
        if uncatalogued:
            headers["x-rig-uncatalogued"] = "true"
        response = Client(self.url).ask("GET", "/api/auth/rig/refresh", headers=headers)
        return str(json_of(response)["backstageIdentity"]["token"])

    def limited_token(self, who: str) -> str:
        """Return somebody's limited user token."""
        response = Client(self.url, self.sign_in(who)).get("/api/rig/limited-token")
        return str(json_of(response)["token"])

    def plugin_token(self, who: str | None = None, *, target: str = "litellm") -> str:
        """Return a token of the plugin ``rig`` for another one, on behalf of a user or not."""
        query = {"target": target, **({"obo": "1"} if who else {})}
        token = self.sign_in(who) if who else STATIC_TOKEN
        return str(json_of(Client(self.url, token).get("/api/rig/plugin-token", **query))["token"])

    def forged(self, *arguments: str) -> str:
        """Return a token with any claims and header; ``forge.mjs`` says how."""
        return run(self._folder / "forge.mjs", *arguments, env=self._env)

    def reads(self, token: str) -> dict[str, Any]:
        """Return how Backstage reads a token: ``ok``; if not, ``name`` and ``message``."""
        rig = Client(self.url, STATIC_TOKEN)
        return dict(json_of(rig.post("/api/rig/authenticate", {"token": token})))

    def keycloak_token(self, *arguments: str, **claims: object) -> str:
        """Return an access token of the Keycloak realm.

        Args:
            arguments: ``--alg`` and ``--key``, as ``fake-keycloak.mjs`` says.
            claims: They replace the usual ones; None drops one.
        """
        program = self._folder / "fake-keycloak.mjs"
        return run(program, "token", json.dumps(claims), *arguments, env=self._env)


class Organisation(BackstageRig):
    """A Backstage of its own, on a free port, in whose catalog people come, move and leave.

    It has the npm plugin, which no test asks.

    Args:
        folder: For the files of the catalog and its configuration.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._people: dict[str, tuple[str, ...]] = {}
        self._file = folder / "org.yaml"
        extra = folder / "app-config.org.yaml"
        catalog = {
            "locations": [{"type": "file", "target": str(self._file)}],
            "orphanStrategy": "delete",
            "processingInterval": {"seconds": 1},
        }
        extra.write_text(json.dumps({"catalog": catalog}))
        self._env |= {"BACKSTAGE_PORT": str(self.port), "BACKSTAGE_CONFIG_EXTRA": str(extra)}
        self._env["KEYCLOAK_PORT"] = str(free_port())  # which ends with this Backstage
        del self._env["LITELLM_FLASK_URL"]
        self._write()

    def has(self, name: str, *groups: str) -> None:
        """Put a person into the catalog, as direct member of these groups."""
        self._people[name] = groups
        self._await(name, sorted(f"group:default/{group}" for group in groups))

    def loses(self, *names: str) -> None:
        """Take people out of the catalog, which takes half a minute to forget them."""
        for name in names:
            del self._people[name]
        for name in names:
            self._await(name, None)

    def _await(self, name: str, groups: list[str] | None) -> None:
        """Write the catalog's file, and wait until the catalog has read it."""
        self._write()
        if not self.running:
            return
        catalog = Client(self.url, STATIC_TOKEN)

        def arrived() -> bool:
            # alice comes from the same file.
            refreshed = catalog.post("/api/catalog/refresh", {"entityRef": "user:default/alice"})
            assert refreshed.status_code == 200, refreshed.text
            found = catalog.get(f"/api/catalog/entities/by-name/user/default/{name}")
            if groups is None or found.status_code != 200:
                return groups is None and found.status_code == 404
            return groups == sorted(
                relation["targetRef"]
                for relation in found.json().get("relations", [])
                if relation["type"] == "memberOf"
            )

        eventually(arrived, within=90)

    def _write(self) -> None:
        people = [
            {
                "apiVersion": "backstage.io/v1alpha1",
                "kind": "User",
                "metadata": {"name": name},
                "spec": {"memberOf": [*groups]},
            }
            for name, groups in self._people.items()
        ]
        text = (SHARED / "backstage" / "catalog" / "org.yaml").read_text()
        self._file.write_text("\n---\n".join([text, *map(json.dumps, people)]))
