"""LiteLLM's management API, called with the master key.

Paths and shapes as observed on LiteLLM 1.106; its own documentation is at
https://docs.litellm.ai/docs/proxy/virtual_keys. Every method may raise
:class:`~litellm_plugin.errors.UpstreamError`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from litellm_plugin.clients.error_texts import sentence
from litellm_plugin.clients.http import UNAVAILABLE, Answer, NoAnswerError, Upstream
from litellm_plugin.clients.litellm_version import KnownVersion
from litellm_plugin.errors import NoSuchRoute, UpstreamError, UsageUnavailable
from litellm_plugin.observability.request_id import with_context
from litellm_plugin.redaction import redact

log = logging.getLogger(__name__)

Json = dict[str, Any]

ANY_FAULT = range(500, 600)
ADMIN_ID = "default_user_id"  # the user id that LiteLLM gives to calls with the master key

PAGE_SIZE = 1000  # rows; LiteLLM's own limit
MAX_PAGES = 100
MAX_KEYS = 1000  # named in an aggregated answer; LiteLLM's own limit
PART_SIZE = 100  # users, keys or teams of one page; LiteLLM's own limit
MAX_KEY_PAGES = 5  # of one user; for more pages, one /user/info costs LiteLLM less
WITHOUT_V2 = 300.0  # seconds until /v2/user/info is tried again where LiteLLM lacks it
MAX_TEXT = 10_000  # characters of an error's text
SIDE_BY_SIDE = 8  # calls under way at once, in one process, for lists of teams and pages

LOOK_FIRST = "LiteLLM may have done it all the same: look before you try again."

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Account:
    """One LiteLLM user: the user's own row, without keys.

    Attributes:
        user_id: LiteLLM's id, such as ``jane@example.com``.
        info: The row: limits, spend in USD, ``user_email``.
        team_ids: The ids of the user's teams, in LiteLLM's order.
        asked: The id that was looked up.
    """

    user_id: str
    info: Json
    team_ids: list[str]
    asked: str

    def in_team(self, team_id: str) -> bool:
        """Tell whether the user is a member of a team."""
        return team_id in self.team_ids


class LiteLLM:
    """A client of one LiteLLM proxy.

    Args:
        upstream: Sends the requests.
        base_url: The proxy's address, without a trailing slash.
        master_key: The proxy admin's key; it is sent in the Authorization header only.
        version: LiteLLM's version, by which the usage of a user is refused where LiteLLM is too
            old to select one user; None: not checked.
    """

    def __init__(
        self,
        upstream: Upstream,
        base_url: str,
        master_key: str,
        version: KnownVersion | None = None,
    ) -> None:
        self._upstream = upstream
        self._version = version
        self._base_url = base_url
        self._headers = {"Authorization": f"Bearer {master_key}", "Accept": "application/json"}
        # Its threads start with the first use, so a worker forked before has its own.
        self._workers = ThreadPoolExecutor(SIDE_BY_SIDE, thread_name_prefix="litellm")
        self._v2_from = 0.0  # time.monotonic() from which /v2/user/info is tried

    # -- the proxy itself ----------------------------------------------------

    def works(self) -> bool:
        """Tell whether LiteLLM is up and has its database; sent without the master key."""
        try:
            answer = self._upstream.request("GET", f"{self._base_url}/health/readiness")
            status = answer.json()
        except NoAnswerError:
            return False
        except ValueError:
            status = None
        # Without a database LiteLLM calls itself healthy, and can't manage keys. A 4xx means that
        # the page is hidden, and so that LiteLLM is up.
        database = status.get("db") if isinstance(status, dict) else None
        return answer.status < 500 and database != "Not connected"

    def version(self, *, document: bool = False) -> str | None:
        """Return LiteLLM's version, such as ``1.106.2``; None where LiteLLM does not name it.

        Args:
            document: Whether to read the OpenAPI document too, which has megabytes.
        """
        # Since 1.106 only the details name the version; older ones name it in the readiness.
        paths = ["/health/readiness/details", "/health/readiness"]
        if document:
            paths.append("/openapi.json")
        for path in paths:
            try:
                found = self._get(path)
            except UpstreamError as exc:
                if exc.answered is None:
                    raise
                continue
            match found:
                case {"litellm_version": str(version)} | {"info": {"version": str(version)}}:
                    if version:
                        return version
        return None

    def license(self) -> Json | None:
        """Return the proxy's licence; None where LiteLLM has no such route.

        ``{has_license, license_type, expiration_date, …}``; ``license_type`` is ``community``
        without one.
        """
        try:
            return _object(self._get("/health/license"))
        except UpstreamError as exc:
            if exc.answered in {404, 405}:
                return None
            raise

    def own_key(self) -> Json | None:
        """Return LiteLLM's row of the configured key; None if it is the master key itself.

        Raises:
            UpstreamError: ``answered`` is 401 where the key is not accepted.
        """
        try:
            data = _object(self._get("/key/info"))
        except UpstreamError as exc:
            if exc.answered == 404:  # the master key is in the proxy's settings, not its database
                return None
            raise
        return _object(data.get("info"))

    # -- users ---------------------------------------------------------------

    def account(self, user_id: str) -> Account | None:
        """Look a user up by LiteLLM's id, without keys; None where LiteLLM has no such user.

        Asks ``/v2/user/info``, which costs LiteLLM least; ``/user/list`` where LiteLLM does not
        have that, such as 1.81.
        """
        if time.monotonic() >= self._v2_from:
            with suppress(NoSuchRoute):
                return self._user("/v2/user/info", user_id)
            self._v2_from = time.monotonic() + WITHOUT_V2
        if "," not in user_id:  # /user/list takes a comma for the end of an id
            data: Json = {}
            with suppress(NoSuchRoute):
                query = {"user_ids": user_id, "page_size": str(PART_SIZE)}
                data = _object(self._get("/user/list", query))
            # It lists every user whose id contains this one, in any case of letters.
            for row in _listed(data, "users"):
                if row.get("user_id") == user_id:
                    return _account(user_id, row)
            if data.get("total_pages") in {0, 1}:
                return None
        return self.whole_account(user_id)

    def accounts_of(self, user_ids: Sequence[str]) -> list[Account]:
        """Look users up as :meth:`account` does; those that LiteLLM does not have are left out."""
        found = self._side_by_side(self.account, user_ids)
        return [account for account in found if account is not None]

    def whole_account(self, user_id: str) -> Account | None:
        """Look a user up by ``/user/info``, LiteLLM's slowest read; else as :meth:`account`.

        ``info`` has the user's ``keys`` and ``organization_memberships``, too.
        """
        return self._user("/user/info", user_id)

    def _user(self, path: str, user_id: str) -> Account | None:
        try:
            return _account(user_id, self._get(path, {"user_id": user_id}))
        except UpstreamError as exc:
            if _is_unknown(exc):
                return None
            raise

    def users_with_email(self, email: str) -> list[Json]:
        """List the users whose e-mail contains ``email``, in any case of letters.

        LiteLLM takes "_" for any character, so the caller has to compare the e-mails.

        Raises:
            UpstreamError: They don't fit on one page.
        """
        query = {"user_email": email, "page_size": str(PART_SIZE)}
        data = _object(self._get("/user/list", query))
        if data.get("total_pages", 1) not in {0, 1}:
            raise UpstreamError(
                "LiteLLM has too many users of such an e-mail", advice="ask your administrator"
            )
        return _listed(data, "users")

    def accounts(self, page: int = 1) -> tuple[list[Account], int]:
        """Return a page of all users as accounts, and the number of pages; see :meth:`users`."""
        rows, pages = self.users(page)
        listed = [_account(str(row.get("user_id")), row) for row in rows]
        return [account for account in listed if account is not None], pages

    def users(self, page: int = 1) -> tuple[list[Json], int]:
        """Return a page of all users, :data:`PART_SIZE` rows, the oldest first, without keys.

        Returns:
            The rows, and the number of pages.
        """
        return self._page("/user/list", "users", page, {"page_size": str(PART_SIZE)})

    def keys(self, page: int = 1) -> tuple[list[Json], int]:
        """Return a page of all keys, as :meth:`users` does; secrets masked."""
        query = {"return_full_object": "true", "size": str(PART_SIZE)}
        return self._page("/key/list", "keys", page, query)

    def team_rows(self, page: int = 1) -> tuple[list[Json], int]:
        """Return a page of all teams, as :meth:`users` does; with members, without keys."""
        return self._page("/v2/team/list", "teams", page, {"page_size": str(PART_SIZE)})

    def delete_user(self, user_id: str) -> None:
        """Delete a user with their keys and memberships."""
        self._post("/user/delete", {"user_ids": [user_id]})

    def create_user(self, user: Json) -> None:
        """Create a user; ``auto_create_key`` must be false, or LiteLLM creates a key too."""
        self._post(
            "/user/new", user, unfinished="If LiteLLM created the user, the next visit finds it."
        )

    def update_user(self, user: Json) -> None:
        """Change a user; LiteLLM creates a user with an unknown ``user_id``."""
        self._post("/user/update", user)

    # -- keys ----------------------------------------------------------------

    def keys_of(self, user_id: str) -> list[Json]:
        """List all virtual keys of a user, secrets masked, the oldest first.

        Args:
            user_id: :attr:`Account.user_id`; not "", or LiteLLM lists the keys of all users.
        """
        query = {
            "user_id": user_id,
            "return_full_object": "true",
            "size": str(PART_SIZE),
            "sort_by": "created_at",
            "sort_order": "asc",
        }
        with suppress(NoSuchRoute):
            first = self._get("/key/list", query)
            if _page_count(first) <= MAX_KEY_PAGES:
                return self._further_pages(first, "keys", "/key/list", query)
        return _part(self._get("/user/info", {"user_id": user_id}), "keys")

    def generate_key(self, key: Json) -> Json:
        """Create a virtual key; only this answer of LiteLLM's has the secret, in ``key``."""
        return _object(self._post("/key/generate", key, unfinished=""), unfinished="")

    def newest_keys(self, user_id: str | None, alias: str | None) -> list[Json]:
        """List the newest 100 keys of a user, with an alias, or both; secrets masked."""
        query = {"return_full_object": "true", "size": "100", "page": "1"}
        named = {"user_id": user_id, "key_alias": alias}
        query |= {name: value for name, value in named.items() if value}
        # Versions that can't sort list the newest last, or in any order.
        query |= {"sort_by": "created_at", "sort_order": "desc"}
        return _listed(self._get("/key/list", query), "keys")

    def key(self, token: str) -> Json | None:
        """Return the row of a key by its hash; None for an unknown or a deleted key."""
        try:
            info = _object(_object(self._get("/key/info", {"key": token})).get("info"))
        except UpstreamError as exc:
            if _is_unknown(exc):
                return None
            raise
        # LiteLLM finds deleted keys, too.
        return None if info.get("status") == "deleted" else {**info, "token": token}

    def update_key(self, change: Json) -> Any:
        """Change the key named by ``key`` (a secret or its hash); returns the key."""
        return self._post("/key/update", change)

    def block_key(self, token: str) -> None:
        """Block a key at once."""
        self._post("/key/block", {"key": token})

    def unblock_key(self, token: str) -> None:
        """Undo :meth:`block_key`."""
        self._post("/key/unblock", {"key": token})

    def reset_key_spend(self, token: str) -> None:
        """Set a key's spend to 0 USD."""
        path = f"/key/{quote(token, safe='')}/reset_spend"
        try:
            self._post(path, {"reset_to": 0})
        except NoSuchRoute:
            # LiteLLM before 1.81.10 has no such route.
            self.update_key({"key": token, "spend": 0})

    def delete_key(self, token: str) -> None:
        """Delete a key for good; LiteLLM echoes unknown keys as deleted."""
        self._post("/key/delete", {"keys": [token]})

    # -- models --------------------------------------------------------------

    def model_info(self) -> list[Json]:
        """List the models with prices, in USD per token, and capabilities."""
        return _listed(self._get("/model/info"), "data")

    def model_names(self) -> list[Json]:
        """List the models by name only, as the OpenAI API does."""
        return _listed(self._get("/models"), "data")

    # -- teams ---------------------------------------------------------------

    def team(self, team_id: str) -> Any:
        """Return ``/team/info`` as it is: ``{team_id, team_info, …}``, or a bare team row.

        Raises:
            UpstreamError: ``answered`` is 404 where there is no such team.
        """
        return self._get("/team/info", {"team_id": team_id}, again=ANY_FAULT)

    def teams(self, team_ids: Sequence[str]) -> list[tuple[str, Any]]:
        """Return each team's id and ``/team/info``; teams that can't be read are left out."""

        def read(team_id: str) -> tuple[str, Any] | None:
            try:
                return team_id, self.team(team_id)
            except UpstreamError as exc:
                log.warning("team %s could not be read: %s", team_id, redact(exc.message))
                return None

        return [team for team in self._side_by_side(read, team_ids) if team is not None]

    def teams_of(self, user_id: str) -> list[Json]:
        """List those of a user's teams whose rows are as complete as ``/team/info``.

        The list is empty where LiteLLM has no ``/v2/team/list``, or no such user.
        """
        query = {"user_id": user_id, "page_size": str(PART_SIZE)}
        try:
            first = self._get("/v2/team/list", query)
        except UpstreamError as exc:
            if exc.answered == 404:
                return []
            raise
        return list(filter(_is_whole, self._further_pages(first, "teams", "/v2/team/list", query)))

    def all_teams(self) -> list[Json]:
        """List every team of the proxy, keys and members included."""
        return _listed(self._get("/team/list"), "teams", "data")

    def create_team(self, team: Json) -> Json:
        """Create a team; returns its row."""
        return _object(self._post("/team/new", team), unfinished=LOOK_FIRST)

    def update_team(self, change: Json) -> Json:
        """Change a team; returns ``{team_id, data}``."""
        return _object(self._post("/team/update", change), unfinished=LOOK_FIRST)

    def delete_team(self, team_id: str) -> None:
        """Delete a team and its keys."""
        self._post("/team/delete", {"team_ids": [team_id]})

    def add_member(self, team_id: str, user_id: str, max_budget: float | None) -> None:
        """Add a user to a team; ``max_budget`` is the user's own budget there, in USD."""
        body: Json = {"team_id": team_id, "member": {"user_id": user_id, "role": "user"}}
        if max_budget is not None:
            body["max_budget_in_team"] = max_budget
        self._post("/team/member_add", body)

    def remove_member(self, team_id: str, user_id: str) -> None:
        """Remove a user from a team; LiteLLM deletes the user's keys in the team, too."""
        self._post("/team/member_delete", {"team_id": team_id, "user_id": user_id})

    # -- objects a team can be given -----------------------------------------

    def vector_stores(self) -> list[Json]:
        """List the vector stores."""
        return _listed(self._get("/vector_store/list"), "data", "vector_stores")

    def mcp_servers(self) -> list[Json]:
        """List the MCP servers.

        ``/mcp/server/list`` would be LiteLLM's MCP endpoint: an endless stream.
        """
        return _listed(self._get("/v1/mcp/server"), "servers", "data")

    # -- usage and audit -----------------------------------------------------

    def activity(self, kind: str, owner: str | None, start: str, end: str) -> list[Any]:
        """Return the daily activity of a user or a team.

        Args:
            kind: ``user`` or ``team``.
            owner: LiteLLM id of the user or team; None: all of them.
            start: First day, ``YYYY-MM-DD`` in UTC.
            end: Last day, included.

        Returns:
            The pages, each ``{results: [{date, metrics, breakdown}], metadata}``: one where
            LiteLLM has an aggregated answer. A day may be split over two pages, and
            ``metadata`` sums up its own page. Spend in USD.

        Raises:
            UsageUnavailable: There are more than :data:`MAX_PAGES` pages, LiteLLM is too old to
                select one user, or the team's id has a comma.
        """
        path, query = _activity_path(kind), self._period(kind, owner, start, end)
        try:
            answer = self._aggregated(path, {**query, "api_key_limit": str(MAX_KEYS)})
        except NoSuchRoute:  # any other 404 means no usage
            return self._all_pages(path, query)
        if not _keys_cut(answer):
            return [answer]
        try:
            return self._all_pages(path, query)
        except UpstreamError as exc:
            if exc.answered != 404:
                raise
            return [answer]  # complete but for some keys

    def key_sums(self, kind: str, owner: str, start: str, end: str) -> list[Json]:
        """Return LiteLLM's sums of a period for each key of a user or team, a cheap read.

        The arguments are those of :meth:`activity`. LiteLLM 1.106 has
        ``/user/daily/activity/aggregated/keys``, 1.81 does not.

        Returns:
            ``{api_key, metrics, metadata}`` of each key; ``metadata`` has name and team of now.

        Raises:
            UsageUnavailable: There are more than :data:`MAX_KEYS` keys; and as :meth:`activity`.
        """
        query = self._period(kind, owner, start, end)

        def page(number: int) -> Any:
            place = {"limit": str(PART_SIZE), "offset": str(number * PART_SIZE)}
            return self._get(f"{_activity_path(kind)}/aggregated/keys", {**query, **place})

        first = page(0)
        total = first.get("total_api_keys") if isinstance(first, dict) else None
        if not isinstance(total, int) or total > MAX_KEYS:
            raise UsageUnavailable(f"LiteLLM has the usage of more than {MAX_KEYS} keys: {total}")
        further = self._side_by_side(page, range(1, -(-total // PART_SIZE)))
        rows = [row for each in (first, *further) for row in _listed(each, "api_keys")]
        if len(rows) != total:
            raise UsageUnavailable(f"LiteLLM has the usage of {total} keys, and lists {len(rows)}")
        return rows

    def activity_page(
        self, kind: str, day: str, page: int = 1, owner: str | None = None
    ) -> tuple[Any, int]:
        """Return a page of one day's activity, and the number of pages.

        ``page`` is from 1, of :data:`PAGE_SIZE` rows of LiteLLM's database; the other arguments
        and the errors are those of :meth:`activity`.
        """
        query = self._period(kind, owner, day, day)
        data = self._activity_page(_activity_path(kind), query, page)
        return data, _page_count(_metadata(data))

    def activity_totals(self, kind: str, day: str) -> Json | None:
        """Return LiteLLM's own totals of a day, over all users or teams.

        Returns:
            ``metadata`` of ``/aggregated``; None where LiteLLM does not have that route, as 1.81
            for teams.
        """
        query = {**self._period(kind, None, day, day), "api_key_limit": "1"}
        with suppress(NoSuchRoute):
            return _object(_metadata(self._aggregated(_activity_path(kind), query)))
        return None

    def audit_log(self, query: Mapping[str, str]) -> Any:
        """Return a page of the audit log, unchanged."""
        return self._get("/audit", query)

    def _period(self, kind: str, owner: str | None, start: str, end: str) -> dict[str, str]:
        query = {"start_date": start, "end_date": end}
        if kind == "team" and owner is not None:
            if "," in owner:
                # LiteLLM would return the usage of several teams.
                raise UsageUnavailable(
                    "LiteLLM can't tell the usage of a team with a comma in its id"
                )
            query["team_ids"] = owner
        elif owner is not None:
            if self._version is not None:
                self._version.refuse_too_old()
            query["user_id"] = owner
        return query

    def _aggregated(self, path: str, query: Mapping[str, str]) -> Any:
        try:
            return self._get(f"{path}/aggregated", query)
        except UpstreamError as exc:
            if exc.answered == 405:  # LiteLLM 1.81, for teams
                raise NoSuchRoute(exc.message, answered=405) from exc
            raise

    def _activity_page(self, path: str, query: Mapping[str, str], number: int) -> Any:
        return self._get(path, {**query, "page": str(number), "page_size": str(PAGE_SIZE)})

    def _all_pages(self, path: str, query: Mapping[str, str]) -> list[Any]:
        first = self._activity_page(path, query, 1)
        pages = _page_count(_metadata(first))
        if pages > MAX_PAGES:
            raise UsageUnavailable(
                f"LiteLLM's answer has too many pages: {pages}, and {MAX_PAGES} are read at most. "
                "Ask for fewer days."
            )

        def later(number: int) -> Any:
            try:
                return self._activity_page(path, query, number)
            except UpstreamError as exc:
                if exc.answered != 404 and "not found" not in exc.message.lower():
                    raise
                # For the first page this means no usage; here the rest of the usage is missing.
                raise UsageUnavailable(
                    f"LiteLLM returned page 1 of {pages} of the usage, but not page {number}:"
                    f" {exc.message.rstrip('.')}. Try again."
                ) from exc

        return [first, *self._side_by_side(later, range(2, pages + 1))]

    def _page(
        self, path: str, name: str, page: int, query: Mapping[str, str]
    ) -> tuple[list[Json], int]:
        """Return the rows of one page, the oldest first, and the number of pages."""
        order = {"sort_by": "created_at", "sort_order": "asc"}
        data = self._get(path, {"page": str(page), **query, **order})
        return _part(data, name), _page_count(data)

    def _further_pages(
        self, first: Any, name: str, path: str, query: Mapping[str, str]
    ) -> list[Json]:
        """Return the rows of all pages of a list; ``first`` is its first page."""
        numbers = range(2, _page_count(first) + 1)
        pages = self._side_by_side(lambda n: self._get(path, {**query, "page": str(n)}), numbers)
        return [row for page in (first, *pages) for row in _part(page, name)]

    # -- requests ------------------------------------------------------------

    def _get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        again: Container[int] = UNAVAILABLE,
    ) -> Any:
        try:
            answer = self._upstream.request(
                "GET", self._base_url + path, params=query, headers=self._headers, again=again
            )
        except NoAnswerError as exc:
            raise UpstreamError(str(exc)) from exc
        return self._decoded(answer)

    def _post(self, path: str, body: Json, *, unfinished: str = LOOK_FIRST) -> Any:
        """Send a write; ``unfinished`` is added to an error after which LiteLLM may have acted."""
        try:
            answer = self._upstream.request(
                "POST", self._base_url + path, body=body, headers=self._headers
            )
        except NoAnswerError as exc:
            error = UpstreamError(str(exc))
            raise (error.unfinished_with(unfinished) if exc.sent else error) from exc
        try:
            return self._decoded(answer)
        except UpstreamError as exc:
            exc.write = True
            own = _is_own_error(answer)
            if isinstance(exc, NoSuchRoute) and not own:
                # After a reverse proxy's 404, no other route may be tried.
                raise UpstreamError(exc.message, answered=exc.answered) from exc
            # LiteLLM may have acted where its answer can't be read, or a reverse proxy got none.
            # It has not acted where it returns an error of its own.
            if answer.ok or answer.status == 504 or (answer.status in {502, 503} and not own):
                raise exc.unfinished_with(unfinished) from exc
            raise

    def _decoded(self, answer: Answer) -> Any:
        if answer.status == 401:
            # The caller reads LiteLLM's text, which does not name the setting.
            log.error("%s refuses the master key; check litellm.masterKey", self._base_url)
        if not answer.ok:
            raise upstream_error(answer)
        try:
            data = answer.json()
        except ValueError as exc:
            raise UpstreamError(
                "LiteLLM's answer is not valid JSON", advice="ask your administrator"
            ) from exc
        if isinstance(data, dict) and isinstance(data.get("error"), dict):
            raise upstream_error(answer)
        return data

    def _side_by_side(self, call: Callable[[A], R], arguments: Sequence[A]) -> list[R]:
        if len(arguments) < 2:
            return [call(argument) for argument in arguments]
        return list(self._workers.map(with_context(call), arguments))


def rows_of_all_pages(
    read: Callable[[int], tuple[list[R], int]], before_page: Callable[[int, int], None]
) -> Iterator[R]:
    """Yield the rows of all pages of a list, page by page.

    Args:
        read: Returns the rows of a page, and the number of pages; such as ``LiteLLM.users``.
        before_page: Called before each page is read, with its number and the number of pages that
            is known so far.
    """
    page, pages = 1, 1
    while page <= pages:
        before_page(page, pages)
        rows, pages = read(page)
        yield from rows
        page += 1


def upstream_error(answer: Answer) -> UpstreamError:
    """Return the error of an answer with an error, whichever shape its body has.

    The message is the sentence in the body, else the status, with the text of a body that is not
    JSON, such as a reverse proxy's.
    """
    said = f"LiteLLM API error: {answer.status} {answer.reason}"
    try:
        body = answer.json()
    except ValueError:
        # A reverse proxy that answers 404 does not let the path through.
        kind = NoSuchRoute if answer.status == 404 else UpstreamError
        return kind(f"{said} - {sentence(answer.text)}"[:MAX_TEXT], answered=answer.status)
    missing = answer.status == 404 and body == {"detail": "Not Found"}
    kind = NoSuchRoute if missing else UpstreamError
    error = body.get("error") if isinstance(body, dict) else None
    source = error if isinstance(error, dict) else body
    param = source.get("param") if isinstance(source, dict) else None
    named = isinstance(param, str) and param not in {"", "None"}
    message = sentence(body)[:MAX_TEXT] or said
    return kind(message, answered=answer.status, param=param if named else None)


def _is_unknown(error: UpstreamError) -> bool:
    """Tell whether LiteLLM has the route, and not the row that was asked for."""
    return error.answered == 404 and not isinstance(error, NoSuchRoute)


def _is_own_error(answer: Answer) -> bool:
    """Tell whether an error's body is LiteLLM's own, and not a reverse proxy's."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and not body.keys().isdisjoint({"error", "detail", "message"})


def _activity_path(kind: str) -> str:
    return f"/{kind}/daily/activity"


def _metadata(data: Any) -> Any:
    return data.get("metadata") if isinstance(data, dict) else None


def _keys_cut(data: Any) -> bool:
    """Tell whether an aggregated answer names fewer keys than there are."""
    match _metadata(data):
        case {"api_key_limit": int(limit), "total_api_keys": int(total)}:
            return bool(total > limit)
    return False


def _account(asked: str, data: Any) -> Account | None:
    """Read a user's row, or ``/user/info``: ``{user_info, keys, teams}``.

    Returns:
        None where LiteLLM has no such user. Several versions then answer with a ``user_info``
        without ``user_id``, beside spend, keys and teams of the id.
    """
    if not isinstance(data, dict):
        raise UpstreamError(
            "LiteLLM's answer about the user is not an object",
            advice="ask your administrator",
        )
    own = data.get("user_info", data)
    user_id = own.get("user_id") if isinstance(own, dict) else None
    if not isinstance(user_id, str) or not user_id:
        return None
    teams = data["teams"] if isinstance(data.get("teams"), list) else []
    ids = [row.get("team_id") if isinstance(row, dict) else row for row in teams]
    return Account(
        user_id,
        {**data, **{name: value for name, value in own.items() if value is not None}},
        [team_id for team_id in ids if isinstance(team_id, str)],
        asked,
    )


def _is_whole(team: Json) -> bool:
    """Tell whether a row of ``/v2/team/list`` is as complete as ``/team/info``.

    Of object permissions it has the id alone.
    """
    return isinstance(team.get("team_id"), str) and (
        team.get("object_permission") is not None
        or ("object_permission_id" in team and not team["object_permission_id"])
    )


def _page_count(page: Any) -> int:
    count = page.get("total_pages") if isinstance(page, dict) else None
    return count if isinstance(count, int) else 1


def _part(page: Any, name: str) -> list[Json]:
    """Return the rows of one page; a page without a list is an error, and not an empty page."""
    rows = page.get(name) if isinstance(page, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UpstreamError(
            f"LiteLLM's answer has no list of {name}", advice="ask your administrator"
        )
    return rows


def _listed(data: Any, *names: str) -> list[Json]:
    """Return the rows of a list, or of the first list below one of ``names``; else none."""
    if isinstance(data, dict):
        data = next((data[name] for name in names if isinstance(data.get(name), list)), None)
    return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []


def _object(data: Any, *, unfinished: str | None = None) -> Json:
    """Return an answer that has to be an object; ``unfinished`` as in ``_post`` for a write."""
    if isinstance(data, dict):
        return data
    error = UpstreamError("LiteLLM's answer is not an object", advice="ask your administrator")
    raise error if unfinished is None else error.unfinished_with(unfinished)
