"""Members, packs, slots: the plan as frozen values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from ensemble_svc.registry import Spec
from ensemble_svc.spec.augment import Augment
from ensemble_svc.spec.averages import Swag
from ensemble_svc.spec.job import SCHEMA_VERSION, Resample
from ensemble_svc.spec.model import Model
from ensemble_svc.spec.preprocess import Preprocess
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.search import AGAIN
from ensemble_svc.spec.tasks import JobTask, Tasks
from ensemble_svc.spec.training import TrainingSpec

SINGLE = 1_000_000
"""Index of the single model that costs what the ensemble does; no member has it."""


def index_of(member: str) -> int:
    """The index of a member by its id."""
    place = member.partition("-")[0]
    return SINGLE if place == "single" else int(place)


def place_of(index: int) -> str:
    """How the names of a member's folder and of its pack begin."""
    return "single" if index == SINGLE else f"{index:04d}"


def member_id(index: int, digest: str) -> str:
    """Name of a member's folder: its index and the first 12 digits of its digest."""
    return f"{place_of(index)}-{digest[:12]}"


def pack_id(first: int, digests: Sequence[str]) -> str:
    """Name of a pack by the index of its first member and the digests of all."""
    return f"{place_of(first)}x{len(digests)}-{sha256(''.join(digests).encode()).hexdigest()[:8]}"


class MemberSpec(Spec):
    """Everything that decides what is sealed of one member, and nothing else."""

    index: int
    """Position in the job, from 0; with the job's seed it fixes all of the member's draws."""
    job_seed: int
    task: JobTask
    tasks: Tasks = {}
    """Of several answers, each one's kind, weight and loss."""
    data_hash: str
    split_hash: str
    preprocess: tuple[Preprocess, ...]
    augment: tuple[Augment, ...]
    standardize_target: bool
    resample: Resample
    streamed: bool = False
    """Whether its pack reads one stream of rows, each weighed by how often the member has it."""
    model: Model
    training: TrainingSpec
    snapshots: int = 0
    """Ends of its last cycles that are members of the ensemble in its place."""
    mc_samples: int = 0
    """Networks of it, with dropout drawn once for each, that are members of the ensemble in its place."""
    init_of: int | None = None
    """Index of the member whose initial weights it takes; its own where there is none."""
    varied: Mapping[str, Any] = {}
    """The hyper-parameters in which this member departs from the job, by dotted path."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the specification and of the schema version: the member's identity."""
        aside = {"varied"} | (set() if self.init_of is not None else {"init_of"})
        body = self.model_dump(mode="json", exclude=aside)
        return sha256(f"{SCHEMA_VERSION}{json.dumps(body, sort_keys=True)}".encode()).hexdigest()

    @property
    def id(self) -> str:
        """Name of the member's folder: its index and the first 12 digits of its digest."""
        return member_id(self.index, self.digest)

    @property
    def place(self) -> str:
        """Its index as names of folders and packs begin with it."""
        return place_of(self.index)

    @property
    def is_single(self) -> bool:
        """Whether it is no member of the ensemble, but the single model that the ensemble is measured against."""
        return self.index == SINGLE

    @property
    def is_again(self) -> bool:
        """Whether it trains the configuration of a search's trial again, which nothing ranks or stops."""
        return AGAIN <= self.index < SINGLE

    @property
    def start(self) -> int:
        """Index by which its initial weights are drawn."""
        return self.index if self.init_of is None else self.init_of

    @property
    def num_draws(self) -> int:
        """Draws of SWAG that are members of the ensemble in its place."""
        average = self.training.average
        return average.samples if isinstance(average, Swag) else 0

    @property
    def num_virtual(self) -> int:
        """Members of the ensemble that it stands for; 0 where it is one itself."""
        return self.snapshots or self.mc_samples or self.num_draws


def draw_seed(member: MemberSpec, number: int) -> int:
    """Seed of a member's draw ``number``, counted from 0: of SWAG, or of dropout."""
    return derive_seed(member.job_seed, member.index, "sample", number)


class Pack(Spec):
    """Members of one structure that train at once on one device."""

    members: tuple[MemberSpec, ...]

    @cached_property
    def id(self) -> str:
        """The same for the same members in the same order."""
        return pack_id(self.members[0].index, [member.digest for member in self.members])

    def __len__(self) -> int:
        return len(self.members)


class Forecast(Spec):
    """What a slot, or a whole plan, is expected to take."""

    seconds: float
    """Wall time of training."""
    device_hours: float
    """Hours of GPUs, or of CPU cores where there is no GPU, that are held meanwhile."""
    peak_memory_bytes: int
    """Of the largest slot: resident memory of its process, or memory allocated on its GPU."""
    by: Literal["formula", "measured"]
    at_most: bool
    """Whether members may stop early, so that the seconds are an upper bound."""


class Slot(Spec):
    """A pack with the resources it trains on."""

    pack: Pack
    cpus: int
    gpus: float
    compile: bool = False
    """Whether the training step is compiled, which pays for long trainings alone."""
    reason: str
    """Why these members stand together here, one sentence."""
    forecast: Forecast | None = None
    """None where the network is of the user's own and nothing was measured."""
    processes: int = 1
    """Processes that share each batch of the slot's one member, and its cpus; on GPUs each has one of its own."""
    since: int = 0
    """Epoch at which its members were paused in other packs, whose slices it goes on from; 0: they begin here."""
    until: int | None = None
    """Epoch at which it pauses, its state committed, until the trials of its search are ranked; None: it does not."""

    def halves(self) -> tuple[Slot, Slot]:
        """The first and the second half of the members, each on what the slot has."""
        members, middle = self.pack.members, (len(self.pack) + 1) // 2
        first, second = (Pack(members=some) for some in (members[:middle], members[middle:]))
        return self.model_copy(update={"pack": first}), self.model_copy(update={"pack": second})

    def within(self, *, cpus: int, gpus: float) -> Slot:
        """The same pack on a machine of today, which may be smaller than that of the plan."""
        processes = min(self.processes, max(1, int(gpus))) if self.gpus else self.processes
        fewer = {"cpus": min(self.cpus, cpus), "gpus": min(self.gpus, gpus), "processes": processes}
        return self.model_copy(update=fewer)


class Plan(Spec):
    """Every slot of a run; members that are already sealed are in no slot."""

    slots: tuple[Slot, ...]
    forecast: Forecast | None = None
    """Of all slots together; None where some slot has none."""

    @property
    def members(self) -> Iterator[MemberSpec]:
        """All members, in the order of the slots."""
        return (member for slot in self.slots for member in slot.pack.members)
