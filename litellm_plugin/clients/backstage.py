"""Backstage's catalog, permission and notifications APIs, and public key sets.

All fail closed: without a valid answer they raise
:class:`~litellm_plugin.errors.BackstageUnavailable`, and nothing is allowed.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from litellm_plugin.clients.http import Answer, NoAnswerError, Upstream
from litellm_plugin.config.settings import Discovery
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.redaction import redact

log = logging.getLogger(__name__)

Json = dict[str, Any]

MAX_LOGGED = 500  # characters of an error's text
MAX_FILTER = 200  # characters of a filter's value; the catalog does not index longer ones
# For the log; the user gets only the error message.
TOKEN_ADVICE = (
    ". Backstage fetches this service's public keys from the address that it has for the plugin id"
    " (litellm.service.pluginId): check discovery.endpoints in Backstage's configuration, and run"
    " litellm-plugin doctor"
)
_REF = re.compile("([^:]+):(?:([^/]+)/)?([^/:]+)")  # kind:namespace/name or kind:name
PAGE_SIZE = 500  # entities
MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class Entity:
    """The parts of a catalog entity that are used here.

    Attributes:
        groups: Entity refs of the groups the user is a direct member of, lower case.
        display_name: ``spec.profile.displayName``.
        email: ``spec.profile.email``.
    """

    kind: str
    groups: frozenset[str] = frozenset()
    display_name: str | None = None
    email: str | None = None


def split_ref(ref: str) -> tuple[str, str, str] | None:
    """Split an entity ref into kind, namespace and name; None where it has no kind or name.

    The namespace is ``default`` where it is left out.
    """
    match = _REF.fullmatch(ref)
    return None if match is None else (match[1], match[2] or "default", match[3])


class Catalog:
    """The catalog API.

    Args:
        upstream: Backstage.
        discovery: Has the catalog's URL.
        token: Returns the bearer token of this service.
    """

    def __init__(self, upstream: Upstream, discovery: Discovery, token: Callable[[], str]) -> None:
        self._upstream = upstream
        self._base_url = discovery.base_url("catalog")
        self._token = token

    def entity(self, ref: str) -> Entity | None:
        """Return the entity of a full ref, such as ``user:default/jane``, in any case of letters.

        Returns:
            None where the catalog has no such entity.

        Raises:
            BackstageUnavailable: The catalog did not answer with an entity.
        """
        parts = split_ref(ref)
        if parts is None or ".." in parts or "." in parts:
            return None
        try:
            path = "/".join(quote(part, safe="") for part in parts)
        except UnicodeEncodeError:  # a lone surrogate
            return None
        answer = self._get(f"/entities/by-name/{path}", expected=404)
        if answer.status == 404:
            return None
        data = _decoded(answer)
        if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
            raise BackstageUnavailable(
                "The Backstage catalog's answer is not an entity",
                advice="ask your administrator",
            )
        return _entity(data)

    def refs(self, kind: str) -> Iterator[str]:
        """Yield the ref of every entity of a kind, such as ``user``, in lower case, page by page.

        Raises:
            BackstageUnavailable: The catalog did not answer with entities.
        """
        rows = self._entities(kind, "kind,metadata.namespace,metadata.name")
        return (ref for ref, _ in rows)

    def people(self) -> Iterator[tuple[str, Entity]]:
        """Yield every user's full ref, in lower case, and entity, page by page.

        Raises:
            BackstageUnavailable: The catalog did not answer with entities.
        """
        fields = "kind,metadata.namespace,metadata.name,relations,spec.profile"
        return ((ref, _entity(row)) for ref, row in self._entities("user", fields))

    def _entities(self, kind: str, fields: str) -> Iterator[tuple[str, Json]]:
        query = {"filter": f"kind={kind}", "fields": fields, "limit": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            data = _decoded(self._get("/entities/by-query", query))
            items = data.get("items") if isinstance(data, dict) else None
            if not isinstance(items, list):
                raise BackstageUnavailable(
                    "The Backstage catalog's answer is not a list of entities",
                    advice="ask your administrator",
                )
            yield from ((ref, item) for item in items if (ref := _ref(item)))
            page = data.get("pageInfo")
            cursor = page.get("nextCursor") if isinstance(page, dict) else None
            if not isinstance(cursor, str):
                return
            query = {"cursor": cursor, "fields": query["fields"], "limit": query["limit"]}
        raise BackstageUnavailable("The Backstage catalog's answer has too many pages")

    def users(self, field: str, values: Iterable[str]) -> list[tuple[str, Entity]]:
        """Return the users whose field has one of some values, case-insensitively.

        Args:
            field: Such as ``metadata.name`` or ``spec.profile.email``.
            values: The values. One that does not fit in a filter finds no user.

        Returns:
            Their full entity refs, in lower case, and their entities.

        Raises:
            BackstageUnavailable: The catalog did not answer with users.
        """
        conditions = [f"{field}={value}" for value in values if _fits_filter(value)]
        if not conditions:
            return []
        query = {
            # Conditions on the same field are alternatives.
            "filter": ",".join(["kind=user", *conditions]),
            "fields": "kind,metadata.name,metadata.namespace,relations,spec.profile",
        }
        data = _decoded(self._get("/entities", query))
        rows: list[Any] = data if isinstance(data, list) else [None]
        found = [
            (ref, _entity(row)) for row in rows if (ref := _ref(row)) and ref.startswith("user:")
        ]
        if len(found) != len(rows):
            raise BackstageUnavailable(
                "The Backstage catalog's answer is not a list of users",
                advice="ask your administrator",
            )
        return found

    def _get(
        self, path: str, params: Mapping[str, str] | None = None, *, expected: int | None = None
    ) -> Answer:
        headers = {"Authorization": f"Bearer {self._token()}"}
        url = self._base_url + path
        return _ask(self._upstream, "GET", url, params=params, headers=headers, expected=expected)


def _fits_filter(value: str) -> bool:
    # A comma would begin another condition, and blanks around a value are stripped.
    return 0 < len(value) <= MAX_FILTER and value.isprintable() and not set(value) & {",", " "}


def _ref(row: Any) -> str | None:
    match row:
        case {"kind": str(kind), "metadata": {"name": str(name), **rest}}:
            return f"{kind}:{_text(rest.get('namespace')) or 'default'}/{name}".lower()
    return None


def _entity(data: Mapping[str, Any]) -> Entity:
    spec = data.get("spec")
    profile = spec.get("profile") if isinstance(spec, dict) else None
    profile = profile if isinstance(profile, dict) else {}
    relations = data.get("relations")
    # spec.memberOf holds short names as they were written; the relations are full refs.
    groups = (
        relation.get("targetRef")
        for relation in (relations if isinstance(relations, list) else [])
        if isinstance(relation, dict) and relation.get("type") == "memberOf"
    )
    return Entity(
        kind=data["kind"],
        groups=frozenset(ref for ref in groups if isinstance(ref, str)),
        display_name=_text(profile.get("displayName")),
        email=_text(profile.get("email")),
    )


class Permissions:
    """The permission API, by which Backstage's own policy decides."""

    def __init__(self, upstream: Upstream, discovery: Discovery) -> None:
        self._upstream = upstream
        self._url = discovery.base_url("permission") + "/authorize"

    def allowed(self, name: str, action: str, token: str) -> bool:
        """Tell whether the token's user has a permission.

        Args:
            name: Such as ``litellm.key.create``.
            action: Its ``action`` attribute: create, read, update or delete.
            token: A user token, or a plugin token on behalf of a user. Backstage refuses others.

        Raises:
            BackstageUnavailable: The API did not answer with a decision.
        """
        id_ = str(uuid.uuid4())
        permission = {"type": "basic", "name": name, "attributes": {"action": action}}
        answer = _ask(
            self._upstream,
            "POST",
            self._url,
            headers={"Authorization": f"Bearer {token}"},
            body={"items": [{"id": id_, "permission": permission}]},
            expected=404,
        )
        if answer.status == 404:
            # A missing API is answered with an empty body.
            if not answer.body:
                raise BackstageUnavailable(
                    "Backstage has no permission API here (404)",
                    advice="ask your administrator",
                    answered=404,
                )
            log.warning(
                "The permission API does not know the user of a token: %s",
                redact(answer.text)[:MAX_LOGGED],
            )
            raise BackstageUnavailable(
                "Backstage does not know this sign-in any more",
                advice="reload the page",
                answered=404,
            )
        match _decoded(answer):
            case {"items": [{"id": str(answered), "result": "ALLOW" | "DENY" as result}]}:
                if answered == id_:
                    return bool(result == "ALLOW")
        raise BackstageUnavailable(
            "The Backstage permission API's answer is not a decision",
            advice="ask your administrator",
        )


class Notifications:
    """The notifications API, which shows notices to people and may pass them on by e-mail.

    Args:
        upstream: Backstage.
        discovery: Has the API's URL.
        token: Returns the bearer token of this service.
    """

    def __init__(self, upstream: Upstream, discovery: Discovery, token: Callable[[], str]) -> None:
        self._upstream = upstream
        self._url = discovery.base_url("notifications") + "/notifications"
        self._token = token

    def send(self, ref: str, payload: Mapping[str, str]) -> None:
        """Send a notification to one person.

        https://backstage.io/docs/notifications/usage

        Args:
            ref: Full entity ref of a user.
            payload: ``title`` and, if wanted, ``description``, ``link``, ``severity``, ``topic``
                and ``scope``. A notification replaces the person's older one of that scope.

        Raises:
            BackstageUnavailable: The API did not accept the notification.
        """
        _ask(
            self._upstream,
            "POST",
            self._url,
            headers={"Authorization": f"Bearer {self._token()}"},
            body={"recipients": {"type": "entity", "entityRef": ref}, "payload": payload},
        )


def key_set(upstream: Upstream, url: str) -> Any:
    """Return the decoded document at ``url``.

    Raises:
        BackstageUnavailable: There is no such document, or no answer.
    """
    if url.startswith(("http+srv://", "https+srv://")):
        # Only Backstage resolves such a target of discovery.endpoints.
        raise BackstageUnavailable(
            "a DNS service record is not resolved; give the plugin an external target, too"
        )
    return _decoded(_ask(upstream, "GET", url, logs_failure=False))


def _ask(
    upstream: Upstream,
    method: str,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    expected: int | None = None,
    logs_failure: bool = True,
) -> Answer:
    """Return an answer with status 2xx or ``expected``; raise for all others.

    Without ``logs_failure`` the error names the cause, and the caller logs it.
    """
    try:
        answer = upstream.request(
            method, url, params=params, headers=headers, body=body, logs_failure=logs_failure
        )
    except NoAnswerError as exc:
        message = str(exc) if logs_failure else f"{exc}; {exc.advice}".rstrip("; ")
        raise BackstageUnavailable(message) from exc
    if not answer.ok and answer.status != expected:
        text = redact(answer.text)[:MAX_LOGGED]
        refused = headers is not None and answer.status in {401, 403}
        hint = TOKEN_ADVICE if refused else ""
        log.warning("%s %s answered %d: %s%s", method, url, answer.status, text, hint)
        advice = "ask your administrator"
        if refused:
            what = f"does not accept this service's token ({answer.status})"
        elif answer.status < 500:
            what = f"answers {answer.status} where an API is expected"
        else:
            what = f"failed ({answer.status})"
            advice = "try again in a minute, or ask your administrator"
        raise BackstageUnavailable(f"{upstream.name} {what}", advice=advice, answered=answer.status)
    return answer


def _decoded(answer: Answer) -> Any:
    try:
        return answer.json()
    except ValueError as exc:
        raise BackstageUnavailable(
            "Backstage's answer is not valid JSON", advice="ask your administrator"
        ) from exc


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
