"""From a job to its members: one frozen value for each, whose digest is its identity."""

from __future__ import annotations

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.contradictions import resolve_vary
from ensemble_svc.spec.draws import indices
from ensemble_svc.spec.job import JobSpec


def make_members(
    job: JobSpec, data_hash: str, split_hash: str, *, streamed: bool = False
) -> tuple[MemberSpec, ...]:
    """The members of a job, in order; more members leave the earlier ones as they are.

    Args:
        streamed: the data are larger than a device should hold, see ``data.stream``.
    """
    return tuple(_member(job, index, data_hash, split_hash, streamed=streamed) for index in indices(job))


def _member(job: JobSpec, index: int, data_hash: str, split_hash: str, *, streamed: bool) -> MemberSpec:
    own = resolve_vary(job, index)
    if own.training.optimizer.lr == "auto":
        raise ValueError("training.optimizer.lr is auto; it is to be found before members are made")
    return MemberSpec(
        index=index,
        job_seed=job.seed,
        task=job.task,
        tasks=job.tasks,
        data_hash=data_hash,
        split_hash=split_hash,
        preprocess=job.data.preprocess,
        augment=own.augment,
        standardize_target=job.data.standardize_target,
        resample=job.ensemble.resample,
        streamed=streamed,
        model=own.model,
        training=own.training,
        snapshots=job.ensemble.snapshots,
        mc_samples=job.ensemble.mc_samples,
        init_of=0 if job.ensemble.share_init and index else None,
        varied=own.keys,
    )
