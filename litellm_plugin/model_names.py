"""Names of models in lists of what is allowed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

# Words that LiteLLM takes for a list of models; "a*" does not mean them.
WORDS = frozenset({"all-proxy-models", "all-team-models", "no-default-models"})

# LiteLLM makes a regular expression of a name with "*" and escapes nothing: to it,
# "openai/*|.*" is every model. A dot stands for one character, which changes little.
_REGEX_SIGNS = frozenset("\\^$+?{}[]|()")


def allows(allowed: Iterable[str], name: str) -> bool:
    """Tell whether a list of allowed names has ``name`` in it.

    Args:
        allowed: Names and wildcards: in ``openai/*``, "*" stands for any text, as in LiteLLM.
        name: A model or an access group; or a wildcard, which is allowed if all that it stands
            for is.
    """
    return any(_covers(pattern, name) for pattern in allowed)


def _covers(pattern: str, name: str) -> bool:
    if name == pattern or "*" not in pattern:
        return name == pattern
    if name in WORDS:
        return not pattern.strip("*")
    if "*" in name and not _REGEX_SIGNS.isdisjoint(name):
        return False
    first, *middle, last = pattern.split("*")
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
