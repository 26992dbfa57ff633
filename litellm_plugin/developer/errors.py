"""Errors of the developer's commands."""

from __future__ import annotations


class CommandError(Exception):
    """The command failed. The message is shown on the terminal and has no secret."""


class SignInAgain(CommandError):
    """There is no valid sign-in.

    Args:
        reason: A sentence that says why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} Sign in again: litellm-plugin login")
