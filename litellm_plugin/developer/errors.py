"""Errors of the developer's commands."""

from __future__ import annotations


class CommandError(Exception):
    """The command can't do what it is for. The message is for the terminal and has no secret."""


class SignInAgain(CommandError):
    """There is no valid sign-in.

    Args:
        reason: A sentence.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} Sign in again: litellm-plugin login")
