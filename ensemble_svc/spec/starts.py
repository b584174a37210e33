"""A start that all members share, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.inits import Lsuv
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import Network

KEY = ("ensemble", "share_init")
NOISES = ("dropout", "channel_dropout", "activation_noise")
"""Options of a network that no initial weight depends on."""


def start_clashes(job: JobSpec) -> Iterator[Clash]:
    """What makes initial weights each member's own."""
    if not job.ensemble.share_init:
        return
    if isinstance(job.model, Network) and isinstance(job.model.init, Lsuv):
        words = (
            "true needs weights that are drawn alike, and init 'lsuv' scales them by each member's own rows"
        )
        yield Clash((KEY, ("model", "init")), f"{words}; use another init")
    keys = [("ensemble", "vary", key) for key in job.ensemble.vary]
    keys += [("search", "space", key) for key in (job.search.space if job.search else {})]
    for path in keys:
        section, *_, end = path[2].split(".")
        if section == "model" and end not in NOISES:
            words = f"true needs one network, and members vary {path[2]}; leave one of them out"
            yield Clash((KEY, path), words)
