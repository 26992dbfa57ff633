"""The file with the saved sign-ins and keys.

The file is encrypted with a random key that is in the system's keyring. The tokens themselves can't
be there: the Credential Manager of Windows takes 1,280 characters, and ``logout`` could not find
them, as keyrings can't list their entries. Without a keyring the file is plain JSON with mode 0600,
and the commands say so.

One process at a time writes; the others read either the old file or the new one.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from litellm_plugin.developer.errors import CommandError

SERVICE, NAME = "litellm-plugin", "saved"  # of the keyring's entry
PATIENCE = 120.0  # seconds that a command waits for the lock

_NO_KEYRING = (
    "No keyring of the system can be used, so tokens and keys are saved in plain text in {file}, "
    "which only your user can read."
)


class Saved:
    """The saved sign-ins and keys.

    Args:
        folder: The user's folder for this program; made with mode 0700.
        warn: Shows a sentence to the user.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self._folder = folder
        self._file = folder / "saved"
        self._warn = warn

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes of this user from writing during the block.

        Raises:
            CommandError: Another process has held the lock for two minutes.
        """
        # Imported here, because printing a saved key is to be fast and needs no lock.
        from filelock import FileLock, Timeout  # noqa: PLC0415

        try:
            self._make_folder()
            lock = FileLock(self._folder / "lock", mode=0o600)
            lock.acquire(timeout=PATIENCE)
        except Timeout as exc:
            raise CommandError(
                f"Another litellm-plugin command has held {self._folder / 'lock'} for "
                f"{PATIENCE:g} seconds"
            ) from exc
        except OSError as exc:
            raise _unusable(self._folder, exc) from exc
        try:
            yield
        finally:
            lock.release()

    def read(self) -> dict[str, Any]:
        """Return the saved document; empty if there is none or it can't be decrypted."""
        try:
            content = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise _unusable(self._file, exc) from exc
        if not content.startswith(b"{"):
            secret = _keyring_secret()
            content = _decrypted(content, secret) if secret else b""
        with suppress(ValueError):
            document = json.loads(content)
            if isinstance(document, dict):
                return document
        return {}

    def write(self, document: dict[str, Any]) -> None:
        """Replace the file atomically.

        Raises:
            CommandError: The file can't be written.
        """
        content = json.dumps(document).encode()
        secret = _keyring_secret(make=True)
        if secret:
            from cryptography.fernet import Fernet  # noqa: PLC0415

            content = Fernet(secret).encrypt(content)
        else:
            self._warn(_NO_KEYRING.format(file=self._file))
        try:
            self._make_folder()
            descriptor, name = tempfile.mkstemp(dir=self._folder)  # with mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self._file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as exc:
            raise _unusable(self._file, exc) from exc

    def forget(self) -> None:
        """Delete the file and the keyring's entry."""
        try:
            self._file.unlink(missing_ok=True)
        except OSError as exc:
            raise _unusable(self._file, exc) from exc
        with suppress(Exception):  # as in _keyring_secret
            import keyring  # noqa: PLC0415

            keyring.delete_password(SERVICE, NAME)

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)


def _unusable(path: Path, exc: OSError) -> CommandError:
    return CommandError(f"{path} can't be used: {exc.strerror or exc}")


def _decrypted(content: bytes, secret: bytes) -> bytes:
    from cryptography.fernet import Fernet, InvalidToken  # noqa: PLC0415

    try:
        return Fernet(secret).decrypt(content)
    except (InvalidToken, ValueError):  # the keyring has another key, or the file was changed
        return b""


def _keyring_secret(*, make: bool = False) -> bytes | None:
    """Return the file's encryption key from the keyring; None without a working keyring.

    Args:
        make: Whether to create the key if the keyring has none.
    """
    # A backend raises errors of its own libraries, such as those of D-Bus, besides KeyringError.
    with suppress(Exception):
        import keyring  # noqa: PLC0415

        secret = keyring.get_password(SERVICE, NAME)
        if secret is None and make:
            from cryptography.fernet import Fernet  # noqa: PLC0415

            keyring.set_password(SERVICE, NAME, Fernet.generate_key().decode())
            # keyring's null backend stores nothing.
            secret = keyring.get_password(SERVICE, NAME)
        if secret is not None:
            return secret.encode()
    return None
