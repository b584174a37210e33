"""``dashboard``: a page in the browser that shows runs while they go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verb."""
    app.command()(dashboard)


def dashboard(
    path: Annotated[Path, typer.Argument(help="A run folder, or a folder of runs.", metavar="RUN|STORAGE")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8266,
) -> None:
    """Serve a page that shows runs live: members, rungs, curves, hyper-parameters, where they run; Ctrl-C ends it."""
    from ensemble_svc.cli.training import terminable
    from ensemble_svc.dashboard.server import Server, is_loopback
    from ensemble_svc.dashboard.shelf import Shelf

    with Server(Shelf(path), host, port) as server:
        typer.echo(server.url)
        if not is_loopback(host):
            words = f"warning: everyone who reaches {host} can read these runs: names, options and metrics"
            typer.echo(f"{words}. Without --host only this machine can.", err=True)
        with terminable("the page is closed"):
            server.serve_forever()
