"""Whether a job's tracker is installed; loads neither it nor torch."""

from __future__ import annotations

from importlib.util import find_spec

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.spec.job import JobSpec


def check_tracker(job: JobSpec) -> None:
    """Refuse a job whose tracker is not installed here.

    Raises:
        SpecError: how to install it, or do without.
    """
    package = job.compute.track.package
    if package and find_spec(package) is None:
        words = (
            f"{package} is not installed; `pip install 'ensemble-svc[{package}]'` brings it, and "
            "compute.track: none does without"
        )
        raise SpecError([Fault("compute.track", words)])
