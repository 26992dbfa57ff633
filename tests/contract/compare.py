"""Whether an answer keeps a case's promise; each way it does not is told in words.

Values are compared as one canonical text, in which ``10`` is ``10.0`` and ``true``
is not ``1``; the same text gives the difference to read.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.contract.cases import Case
from tests.fakes import Call

NOW = "<now>"
STAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")
NEAR = timedelta(seconds=60)
# What LiteLLM tells of an account in parts; /user/info tells all of it at once.
LIGHTER = frozenset({"/v2/user/info", "/user/list", "/key/list", "/v2/team/list"})


@dataclass(frozen=True)
class Outcome:
    """What a case's request led to.

    Attributes:
        headers: Of the answer; names in lower case.
        calls: What LiteLLM was asked, in order.
        at: When it was, in UTC.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    calls: Sequence[Call] = ()
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """Return the decoded body.

        Raises:
            ValueError: It is no JSON.
        """
        return json.loads(self.body, parse_constant=_refuse_constant)

    @property
    def writes(self) -> list[dict[str, Any]]:
        return [call.as_write() for call in self.calls if call.method != "GET"]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def differences(case: Case, outcome: Outcome) -> list[str]:
    """Return in what the outcome is not what the case promises; [] where it is."""
    checks = {"exact": _exact, "status": _status_only, "ours": _ours, "skip": _answered}
    found = list(checks[case.parity](case, outcome))
    if case.parity != "skip" and case.original["status"]:
        found += _reads(case, outcome)
    return found + list(_always_json(case, outcome))


def leaks(outcome: Outcome, secret: str) -> bool:
    """Return whether the answer, headers included, has ``secret`` in it."""
    sent = [outcome.body.decode("utf-8", "replace"), *outcome.headers.values()]
    return any(secret in text for text in sent)


# -- parities ----------------------------------------------------------------


def _exact(case: Case, outcome: Outcome) -> Iterator[str]:
    original = case.original
    headers = original["headers"]
    yield from _equal("status", original["status"], outcome.status)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    yield from _equal("media type", media_type, outcome.media_type)
    yield from _equal("Location", headers.get("location"), outcome.headers.get("location"))
    yield from _equal("CORS headers", _cors(headers), _cors(outcome.headers))
    if media_type == "application/json" and case.request["method"] != "HEAD":
        yield from _body_equal(original["json"], outcome)
    yield from _writes_equal(case.writes, outcome)


def _status_only(case: Case, outcome: Outcome) -> Iterator[str]:
    yield from _equal("status", case.original["status"], outcome.status)
    if case.original["status"] >= 400:
        text_wanted = isinstance(_member(case.original.get("json"), "error"), str)
        yield from _error_body(outcome, framework=not text_wanted)
    # More than the contract says: a refused request must not be sent on, nor sent twice.
    yield from _writes_equal([_for_models(write) for write in case.writes], outcome)


def _for_models(write: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded write as difference 16 has it; cases of this parity are as recorded."""
    if write["path"] != "/key/generate":
        return write
    return {**write, "body": {"key_type": "llm_api", **write["body"]}}


def _ours(case: Case, outcome: Outcome) -> Iterator[str]:
    expect = case.expect
    if "status" in expect:
        yield from _equal("status", expect["status"], outcome.status)
    if "status_in" in expect and outcome.status not in expect["status_in"]:
        yield f"status: one of {expect['status_in']} wanted, got {outcome.status}"
    if expect.get("error"):
        yield from _error_body(outcome, framework=False)
    yield from _texts(expect, outcome)
    if "location" in expect:
        yield from _equal("Location", expect["location"], outcome.headers.get("location"))
    if expect.keys() & {"json_subset", "json_path", "json_sum", "absent", "absent_in"}:
        try:
            body = outcome.json()
        except ValueError as exc:
            yield f"body: {exc}"
        else:
            yield from _body_as_expected(expect, body)
    yield from _ours_writes(case, outcome)


def _body_as_expected(expect: Mapping[str, Any], body: Any) -> Iterator[str]:
    if "json_subset" in expect:
        wanted = expect["json_subset"]
        yield from _equal("json_subset", wanted, _projected(body, wanted))
    for path, wanted in expect.get("json_path", {}).items():
        try:
            yield from _equal(f"json_path {path}", wanted, looked_up(body, path))
        except LookupError as exc:
            yield f"json_path {path}: {exc}"
    yield from _sums(expect, body)
    for key in expect.get("absent", ()):
        yield from _absent(body, "the body", key)
    for path, keys in expect.get("absent_in", {}).items():
        try:
            place = looked_up(body, path)
        except LookupError as exc:
            yield f"absent_in {path}: {exc}"
            continue
        for key in keys:
            yield from _absent(place, path, key)


def _sums(expect: Mapping[str, Any], body: Any) -> Iterator[str]:
    for path, wanted in expect.get("json_sum", {}).items():
        try:
            total = sum(looked_up(body, path))
        except (LookupError, TypeError) as exc:
            yield f"json_sum {path}: {exc}"
            continue
        if not math.isclose(total, wanted, rel_tol=1e-9, abs_tol=1e-9):
            yield f"json_sum {path}: {wanted} wanted, got {total}"


def _ours_writes(case: Case, outcome: Outcome) -> Iterator[str]:
    expect = case.expect
    if "writes" in expect:
        recorded = expect["writes"] == "recorded"
        yield from _writes_equal(case.writes if recorded else expect["writes"], outcome)
    if "writes_paths" in expect:
        paths = [write["path"] for write in outcome.writes]
        yield from _equal("writes_paths", expect["writes_paths"], paths)
    yield from _ours_writes_in_part(expect, outcome)


def _ours_writes_in_part(expect: Mapping[str, Any], outcome: Outcome) -> Iterator[str]:
    if "writes_like" in expect:
        like = expect["writes_like"]
        if len(like) != len(outcome.writes):
            yield f"writes_like: {len(like)} wanted, got {len(outcome.writes)}: {outcome.writes}"
        for wanted, got in zip(like, outcome.writes, strict=False):
            yield from _like("writes_like", wanted, got)
    if "last_write" in expect:
        last = outcome.writes[-1] if outcome.writes else None
        yield from _like("last_write", expect["last_write"], last)
    for path in expect.get("no_write_to", ()):
        if any(write["path"] == path for write in outcome.writes):
            yield f"no_write_to {path}: {outcome.writes}"
    if "no_write_contains" in expect:
        for write in outcome.writes:
            if expect["no_write_contains"] in json.dumps(write, ensure_ascii=False):
                yield f"a write contains {expect['no_write_contains']}: {write}"


def _like(what: str, wanted: Any, got: Any) -> Iterator[str]:
    """Compare a write with one that lists the members it must at least have."""
    yield from _equal(what, wanted, _projected(got, wanted))


def _texts(expect: Mapping[str, Any], outcome: Outcome) -> Iterator[str]:
    body = outcome.body.decode("utf-8", "replace")
    for text in _listed(expect.get("not_in_body")):
        if text in body:
            yield f"not_in_body: {text}"
    if not expect.keys() & {"error_contains", "error_not_contains"}:
        return
    try:
        answer = outcome.json()
    except ValueError as exc:
        yield f"error: {exc}: {outcome.body[:200]!r}"
        return
    said = " ".join(str(_member(answer, name) or "") for name in ("error", "hint"))
    for text in _listed(expect.get("error_contains")):
        if text not in said:
            yield f"error_contains {text!r}: {said!r}"
    for text in _listed(expect.get("error_not_contains")):
        if text in said:
            yield f"error_not_contains {text!r}: {said!r}"


def _listed(texts: str | list[str] | None) -> list[str]:
    return [texts] if isinstance(texts, str) else texts or []


def _answered(_: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.status >= 500:
        yield f"status: nothing is promised, but {outcome.status} is no answer"


def _always_json(case: Case, outcome: Outcome) -> Iterator[str]:
    """Check that the page can read the answer: each but a redirect is JSON."""
    if case.request["method"] in {"HEAD", "OPTIONS"} or 300 <= outcome.status < 400:
        return
    if outcome.status == 204:
        return
    yield from _equal("media type of any answer", "application/json", outcome.media_type)
    try:
        outcome.json()
    except ValueError as exc:
        yield f"body of any answer: {exc}"


# -- parts -------------------------------------------------------------------


def _reads(case: Case, outcome: Outcome) -> Iterator[str]:
    # Where we provision and the original did not, the user is read once more.
    first_visits = _provisioned(outcome.writes) - _provisioned(case.writes)
    allowed = case.reads + max(0, first_visits)
    needed = needed_reads(outcome.calls)
    if needed > allowed:
        asked = "\n".join(f"  GET {call.target} -> {call.status}" for call in outcome.calls)
        yield f"reads: at most {allowed} wanted, got {needed}\n{asked}"


def needed_reads(calls: Sequence[Call]) -> int:
    """Count the GETs, but for ``/health…`` and those that only repeat one that had failed.

    The parts of an account count together, as often as the one asked for most.
    """
    lighter: Counter[str] = Counter()
    count = 0
    last: dict[str, Call] = {}
    for call in calls:
        if call.method != "GET" or call.path.startswith("/health"):
            continue
        before = last.get(call.target)
        last[call.target] = call
        if before is not None and before.failed:
            continue
        if call.path in LIGHTER:
            lighter[call.path] += 1
        else:
            count += 1
    return count + max(lighter.values(), default=0)


def _provisioned(writes: Sequence[Mapping[str, Any]]) -> int:
    return sum(write["path"] == "/user/new" for write in writes)


def _body_equal(wanted: Any, outcome: Outcome) -> Iterator[str]:
    try:
        got = outcome.json()
        yield from _equal("JSON", whole(wanted, got), _stamped(wanted, got, outcome.at))
    except ValueError as exc:
        yield f"JSON: {exc}: {outcome.body[:200]!r}"


def _writes_equal(wanted: Sequence[Any], outcome: Outcome) -> Iterator[str]:
    yield from _equal("writes", wanted, _stamped(wanted, outcome.writes, outcome.at))


def _error_body(outcome: Outcome, *, framework: bool) -> Iterator[str]:
    """Check for ``{"error": text}``; ``framework``: or Backstage's own object."""
    try:
        error = _member(outcome.json(), "error")
    except ValueError as exc:
        yield f"error: {exc}: {outcome.body[:200]!r}"
        return
    is_text = isinstance(error, str) and bool(error.strip())
    is_framework = framework and isinstance(_member(error, "message"), str)
    if not is_text and not is_framework:
        yield f"error: a text wanted, got {error!r}"


def _cors(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "access-control-"
    return {name: value for name, value in headers.items() if name.startswith(prefix)}


def _absent(place: Any, path: str, key: str) -> Iterator[str]:
    places = place if isinstance(place, list) else [place]
    if not all(isinstance(one, dict) for one in places):
        yield f"absent: {path} is no object"
    elif any(key in one for one in places):
        yield f"absent: {path} has {key}"


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


# -- values ------------------------------------------------------------------


def looked_up(value: Any, path: str) -> Any:
    """Return what a dotted path leads to.

    ``*`` stands for every item of a list or value of an object, a number for an item of a list.

    Returns:
        The value, or the list of values where the path has a ``*``.

    Raises:
        LookupError: It leads nowhere.
    """
    if not path:
        return value
    step, _, rest = path.partition(".")
    if step == "*":
        if not isinstance(value, list | dict):
            raise LookupError(f"* wants a list or an object, there is {_kind(value)}")
        items = list(value.values()) if isinstance(value, dict) else value
        found = [looked_up(item, rest) for item in items]
        return [one for many in found for one in many] if "*" in rest.split(".") else found
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return looked_up(value[int(step)], rest)
    if not isinstance(value, dict) or step not in value:
        raise LookupError(f"there is no {step} in {_kind(value)}")
    return looked_up(value[step], rest)


def _kind(value: Any) -> str:
    return f"{type(value).__name__} of {sorted(value)}" if isinstance(value, dict) else repr(value)


def _projected(value: Any, wanted: Any) -> Any:
    """Leave out of ``value`` the members that ``wanted`` does not speak of."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        return {name: _projected(value[name], wanted[name]) for name in wanted if name in value}
    if isinstance(value, list) and isinstance(wanted, list) and len(value) == len(wanted):
        return [_projected(*pair) for pair in zip(value, wanted, strict=True)]
    return value


def whole(wanted: Any, got: Any) -> Any:
    """Put whole percentages where ``wanted`` has others; at a half either neighbour will do."""
    if isinstance(wanted, dict):
        there = got if isinstance(got, dict) else {}
        return {
            name: _percent(member, there.get(name))
            if name == "budget_pct"
            else whole(member, there.get(name))
            for name, member in wanted.items()
        }
    if isinstance(wanted, list):
        items = got if isinstance(got, list) else []
        pairs = zip(wanted, [*items, *[None] * len(wanted)], strict=False)
        return [whole(*pair) for pair in pairs]
    return wanted


def _percent(wanted: Any, got: Any) -> Any:
    if not isinstance(wanted, int | float) or isinstance(wanted, bool):
        return wanted
    down = math.floor(wanted)
    if math.isclose(wanted - down, 0.5) and got in {down, down + 1}:
        return got
    return round(wanted)


def _stamped(wanted: Any, value: Any, at: datetime) -> Any:
    """Put ``<now>`` for each time that stands where ``wanted`` has it, and that is now."""
    if wanted == NOW and isinstance(value, str) and STAMP.fullmatch(value):
        return NOW if abs(datetime.fromisoformat(value) - at) < NEAR else value
    if isinstance(value, dict) and isinstance(wanted, dict):
        return {name: _stamped(wanted.get(name), member, at) for name, member in value.items()}
    if isinstance(value, list) and isinstance(wanted, list):
        pairs = zip([*wanted, *[None] * len(value)], value, strict=False)
        return [_stamped(*pair, at) for pair in pairs]
    return value


def _equal(what: str, wanted: Any, got: Any) -> Iterator[str]:
    left, right = canonical(wanted), canonical(got)
    if left == right:
        return
    if "\n" not in left and "\n" not in right:
        yield f"{what}: {left} wanted, got {right}"
        return
    lines = difflib.unified_diff(
        left.splitlines(), right.splitlines(), "wanted", "got", n=2, lineterm=""
    )
    yield "\n".join([f"{what}:", *(f"  {line}" for line in lines)])


def canonical(value: Any) -> str:
    """Return JSON text that is the same for the same value, ``10`` and ``10.0`` included."""
    return json.dumps(_integral(value), sort_keys=True, indent=1, ensure_ascii=False)


def _integral(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _integral(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_integral(item) for item in value]
    return value
