"""One embedded Ray for many files: kept while the same one is asked for, ended when another or none is wanted."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ensemble_svc.cluster.session import Session, connect

HERE = Path(__file__).parent


class KeptRay:
    """This process's connection; a start costs what several tests do, and none of them breaks the cluster."""

    def __init__(self) -> None:
        self._open, self._wanted = ExitStack(), dict[str, Any]()

    def __call__(self, **wanted: Any) -> Session:
        """The session with these settings; the user's modules are those of the tests."""
        if wanted != self._wanted:
            self.end()
            self._session = self._open.enter_context(connect(directory=HERE, **wanted))
            self._wanted = wanted
        return self._session

    def end(self) -> None:
        """Leave this process unconnected."""
        self._wanted = {}
        self._open.close()
