"""Verbs for jobs on a remote cluster: ``submit``, ``jobs``, ``logs``, ``stop``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensemble_svc.cli.options import JobFile, Json, Overrides, print_json, read_job

if TYPE_CHECKING:
    from ensemble_svc.cluster.jobs import Jobs
    from ensemble_svc.spec.job import JobSpec

JobAddress = Annotated[
    str,
    typer.Option(help="The cluster's job server, e.g. http://head:8265.", envvar="RAY_API_SERVER_ADDRESS"),
]
JobId = Annotated[str, typer.Argument(help="The id that submit printed.", metavar="ID")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Accept a cluster that asks for no token.")]


def add_verbs(app: typer.Typer) -> None:
    """Register this file's verbs."""
    app.command()(submit)
    app.command()(jobs)
    app.command()(logs)
    app.command()(stop)


def submit(
    job: JobFile,
    address: JobAddress,
    out: Annotated[
        str | None, typer.Option(help="The run folder, an absolute path on the cluster's storage.")
    ] = None,
    overrides: Overrides = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print the job's log until it ends.")] = False,
    insecure: Insecure = False,
) -> None:
    """Send a job and its folder to a cluster and start it there; prints the job's id."""
    from ensemble_svc.cluster.jobs import Jobs

    spec = read_job(job, overrides)
    there = Jobs(address, insecure=insecure)
    folder = out or str(Path(spec.compute.storage).expanduser().resolve() / spec.name)
    job_id = there.submit(job, out=folder, overrides=overrides or (), about=_about(spec))
    typer.echo(job_id)
    if follow:
        _follow(there, job_id)


def _about(spec: JobSpec) -> dict[str, str]:
    """What tells the job from others on a page that shows neither members nor metrics."""
    search = spec.search
    told = {"name": spec.name, "members": str(spec.ensemble.members)}
    return (
        told
        if search is None
        else told | {"trials": str(search.num_trials), "search": ", ".join(search.space)}
    )


def jobs(address: JobAddress, insecure: Insecure = False, as_json: Json = False) -> None:
    """List the jobs that a cluster remembers, newest first."""
    from dataclasses import asdict

    from ensemble_svc.cluster.jobs import Jobs

    found = Jobs(address, insecure=insecure).recent()
    if as_json:
        print_json([asdict(job) for job in found])
        return
    for job in found:
        typer.echo(f"{job.id}  {job.status:<9}  {job.metadata.get('out', '')}")


def logs(
    job_id: JobId,
    address: JobAddress,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    insecure: Insecure = False,
) -> None:
    """Print what a submitted job has printed."""
    from ensemble_svc.cluster.jobs import Jobs

    there = Jobs(address, insecure=insecure)
    if follow:
        _follow(there, job_id)
        return
    for piece in there.logs(job_id):
        typer.echo(piece, nl=False)


def stop(job_id: JobId, address: JobAddress, insecure: Insecure = False) -> None:
    """Ask a submitted job to commit and end; submitting it again goes on from there."""
    from ensemble_svc.cluster.jobs import Jobs

    asked = Jobs(address, insecure=insecure).stop(job_id)
    typer.echo(f"{job_id}: asked to stop" if asked else f"{job_id}: had ended already")


def _follow(there: Jobs, job_id: str) -> None:
    """Print the log until the job ends, then leave with the job's own exit status."""
    for piece in there.logs(job_id, follow=True):
        typer.echo(piece, nl=False)
    ended = there.find(job_id)
    if ended.status != "SUCCEEDED":
        typer.echo(f"{job_id}: {ended.status}. {ended.message}".rstrip(), err=True)
        raise typer.Exit(ended.exit_code or 1)
