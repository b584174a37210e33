"""The whole job: one YAML file as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from ensemble_svc.registry import Choice, Registry, Shorthand, Spec
from ensemble_svc.spec.aggregate import AggregateSpec
from ensemble_svc.spec.data import DataSpec
from ensemble_svc.spec.fields import DataPath, RunName, Share
from ensemble_svc.spec.model import Mlp, Model
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.tasks import JobTask, Tasks
from ensemble_svc.spec.tasks import Task as Task
from ensemble_svc.spec.trackers import AnyTracker, NoTracker
from ensemble_svc.spec.training import TrainingSpec

SCHEMA_VERSION = 1
"""Version of every file a run writes; part of each member's digest."""

EVENTS_UP_TO = 1000
"""Members of which event files are written unasked; TensorBoard shows more only slowly."""

Metric = Literal[
    "accuracy",
    "nll",
    "brier",
    "ece",
    "rmse",
    "mae",
    "nll_gaussian",
    "top5",
    "ece_adaptive",
    "ece_classwise",
    "ece_smooth",
    "aurc",
    "excess_aurc",
    "brier_reliability",
    "brier_resolution",
    "crps",
    "pinball",
    "width90",
    "coverage_gap",
]


class NoResample(Choice):
    """Every member trains on all training rows."""

    name: Literal["none"] = "none"


class Bootstrap(Choice):
    """As many rows as there are, drawn with replacement (Breiman 1996); about 63.2 % are distinct."""

    name: Literal["bootstrap"] = "bootstrap"


class Subsample(Choice):
    """A share of the rows, drawn without replacement."""

    name: Literal["subsample"] = "subsample"
    fraction: Share = 0.8
    """The share."""


class KFold(Choice):
    """Member i leaves out fold i mod ``folds``; folds are stratified for classification."""

    name: Literal["kfold"] = "kfold"
    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    """Parts the training rows are cut into."""


Resample = Annotated[NoResample | Bootstrap | Subsample | KFold, Field(discriminator="name"), Shorthand()]
RESAMPLES: Registry[Choice] = Registry("resample", Resample)


class EnsembleSpec(Spec):
    """How many members there are and in what they differ."""

    members: Annotated[PositiveInt, Field(le=100_000)] = 8
    """Number of members; each has its own initial weights and order of rows. Those of a ``search`` are its trials'."""
    resample: Resample = NoResample()
    """Which training rows each member sees."""
    share_init: bool = False
    """Let all members begin with the initial weights of member 0, so that a ``soup`` of them can make sense; orders of
    rows, bags, dropout and augmentation stay each member's own."""
    vary: Mapping[str, tuple[Any, ...]] = {}
    """Keys of ``model`` or ``training`` by dotted path, with values dealt to the members in turn."""
    snapshots: Annotated[NonNegativeInt, Field(le=1000)] = 0
    """Ends of the last cycles of each training that are members of the ensemble in its place; 0 for none."""
    mc_samples: Annotated[NonNegativeInt, Field(le=1000)] = 0
    """Networks of each trained one, with dropout drawn once for each, that are members in its place; 0 for none."""
    quorum: Share = 1.0
    """Smallest share of the members that must finish for the run to count as a success."""


class EvaluateSpec(Spec):
    """What is measured and reported."""

    metrics: tuple[Metric, ...] | Literal["auto"] = "auto"
    """``auto``: accuracy, nll, brier and ece of classes; nll, rmse, mae and nll_gaussian of numbers."""
    bins: Annotated[int, Field(ge=2, le=1000)] = 15
    """Bins of the calibration errors and of the Brier score's parts."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Bootstrap resamples of the rows behind each interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Probability that an interval is meant to cover."""
    single: Literal["none", "auto", "width", "epochs"] = "none"
    """Also train one single model that costs what all members cost together, by the parameters it has times the
    rows it reads, and measure the ensemble against it: as much wider (``width``), trained as much longer (``epochs``),
    or wider where the network has a width (``auto``). It is never in the ensemble."""
    ood: tuple[DataPath, ...] = ()
    """Data sets from elsewhere, each a path or a source in YAML's flow style; at the end of training it is measured
    how well the ensemble's doubt tells them from the test rows."""


class ComputeSpec(Spec):
    """Where and how members are trained; changes no result beyond what the laws allow."""

    pack: Literal["auto", "off"] | PositiveInt = "auto"
    """Members that train at once on one device: chosen by the planner, one, or at most this many."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: a GPU where the slot has one."""
    gpus_per_member: Literal["auto"] | NonNegativeFloat = "auto"
    """GPUs a member needs when it trains alone: a share below 1 puts several on one GPU; more than 1
    must be a whole number, and the member's batches are shared among them."""
    processes_per_member: Literal["auto"] | Annotated[PositiveInt, Field(le=1024)] = "auto"
    """Processes that share each batch of a member; ``auto``: one, or one for each of its several GPUs."""
    cpus_per_slot: Literal["auto"] | PositiveInt = "auto"
    """CPU cores of a slot."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the training step (``torch.compile``): ``auto`` does where the steps to come repay it."""
    executor: Literal["ray", "local"] = "ray"
    """``ray``: slots are Ray Tune trials; ``local``: one after another in this process."""
    measure: Literal["auto", "on", "off"] = "auto"
    """Time a few steps before the members are placed: always, never, or where a long run is ahead."""
    storage: DataPath = "runs"
    """Folder under which runs are kept."""
    commit_every_s: NonNegativeFloat = 5.0
    """Seconds between commits of a pack's training state (at epoch ends); 0 commits every epoch."""
    health: Literal["auto", "off"] = "auto"
    """Look at the members' layers at some ends of epochs, for the findings of ``health.json``: ``auto`` does
    where it costs little, ``off`` never. Either way the members are the same bits."""
    tensorboard: Literal["auto", "on", "off"] = "auto"
    """Write TensorBoard's event files, ``RUN/tensorboard/<member>``: always, never, or up to 1,000 members."""
    track: AnyTracker = NoTracker()
    """Where else the run's numbers are kept."""
    retries: Annotated[NonNegativeInt, Field(le=100)] = 2
    """How often a slot that dies is started again."""

    def writes_events(self, num_members: int) -> bool:
        """Whether event files are written of so many members."""
        return self.tensorboard == "on" or (self.tensorboard == "auto" and num_members <= EVENTS_UP_TO)

    def processes(self, *, on_gpu: bool) -> int:
        """Processes that share each batch of a member."""
        if self.processes_per_member != "auto":
            return self.processes_per_member
        return 1 if self.gpus_per_member == "auto" or not on_gpu else max(1, int(self.gpus_per_member))


class JobSpec(Spec):
    """One job: data, a model, a training recipe and an ensemble of it."""

    name: RunName
    """Name of the run's folder."""
    seed: NonNegativeInt = 0
    """Every random draw of the job is made from it."""
    task: JobTask = "classification"
    """What is predicted: a class, numbers, or the several answers that ``tasks`` names."""
    tasks: Tasks = {}
    """The answers of ``task: multitask`` by their targets' names: each kind, weight and loss."""
    data: DataSpec
    model: Model = Mlp()
    """The network of one member."""
    training: TrainingSpec = TrainingSpec()
    ensemble: EnsembleSpec = EnsembleSpec()
    search: SearchSpec | None = None
    """Hyper-parameter search: the members are its trials."""
    aggregate: AggregateSpec = AggregateSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    compute: ComputeSpec = ComputeSpec()

    @model_validator(mode="wrap")
    @classmethod
    def _count_trials(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """A search says how many members there are, where the job does not."""
        job = handler(data)
        if job.search is None or "members" in job.ensemble.model_fields_set:
            return job
        ensemble = job.ensemble.model_copy(update={"members": job.search.num_members})
        return job.model_copy(update={"ensemble": ensemble})
