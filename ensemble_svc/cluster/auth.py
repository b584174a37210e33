"""The secret that a cluster asks for: where it is found, how it is kept, how Ray is told.

One cluster has one token. Ours lie in files that only their owner can read; the token itself never goes
into an argument, a log, a job's environment or a run folder.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from ensemble_svc.errors import ClusterError

OWN_TOKEN = Path("~/.config/ensemble_svc/token")
RAY_TOKEN = Path("~/.ray/auth_token")
REMEDY = (
    "Put the cluster's token in a file that only you can read (chmod 600) and set RAY_AUTH_TOKEN_PATH to "
    f"it, or save it as {OWN_TOKEN}."
)


@dataclass(frozen=True)
class Token:
    """A secret and where it came from; only the place is ever printed."""

    secret: str = field(repr=False)
    source: str

    @property
    def header(self) -> dict[str, str]:
        """The HTTP header that carries it."""
        return {"Authorization": f"Bearer {self.secret}"}


def find_token(path: Path | None = None) -> Token | None:
    """The token to offer to an existing cluster, or None.

    Args:
        path: a token file named by the user; else ``RAY_AUTH_TOKEN``, the file ``RAY_AUTH_TOKEN_PATH``,
            our own token file and Ray's are tried in this order.

    Raises:
        ClusterError: a file was named and cannot be read or is empty.
    """
    if path is not None:
        return _read(path)
    if secret := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return Token(secret, "RAY_AUTH_TOKEN")
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read(Path(named))
    for default in (OWN_TOKEN, RAY_TOKEN):
        if default.expanduser().is_file():
            return _read(default)
    return None


def make_token_file(path: Path) -> Path:
    """Write a new random token that only this user can read; an existing file is never replaced.

    Raises:
        FileExistsError: the path is taken, by a link too.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


@contextmanager
def authenticated(token: Token | Path | None) -> Iterator[None]:
    """Make Ray, in this process and its children, use this token (a value or its file), or none.

    Ray keeps both its mode and its token from its first look at the environment, so both are refreshed.
    What stood in the environment before is put back.
    """
    wanted: dict[str, str] = {"RAY_AUTH_MODE": "disabled" if token is None else "token"}
    if isinstance(token, Path):
        wanted["RAY_AUTH_TOKEN_PATH"] = str(token)
    elif token is not None:
        wanted["RAY_AUTH_TOKEN"] = token.secret
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        _set(names, wanted)
        yield
    finally:
        _set(names, before)


def _set(names: tuple[str, ...], values: dict[str, str]) -> None:
    for name in names:
        os.environ.pop(name, None)
    os.environ.update(values)
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _read(path: Path) -> Token:
    try:
        secret = path.expanduser().read_text().strip()
    except OSError as fault:
        raise ClusterError(f"the token file {path} cannot be read: {fault.strerror}. {REMEDY}") from fault
    if not secret:
        raise ClusterError(f"the token file {path} is empty. {REMEDY}")
    return Token(secret, str(path))
