"""A file that is written piece by piece under a temporary name, and is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ensemble_svc.store.atomic import TEMPORARY, refuse, sync


@contextmanager
def growing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to; it takes its place when the block ends, and is gone when the block fails.

    Raises:
        StoreError: disk full, no permission; the old file, if any, is intact.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as fault:
        refuse(fault, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
