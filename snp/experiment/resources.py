"""What a run asks of a cluster. A job whose time is up is requeued and goes on, so time is a slice, not a guess."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, StringConstraints

from snp.experiment.spec import Scale

Time = Annotated[str, StringConstraints(pattern=r"^(\d+|(\d+-)?\d+:\d\d(:\d\d)?|\d+-\d+)$")]
Option = Annotated[str, StringConstraints(pattern=r"^(--)?[a-z][a-z-]*(=.+)?$")]
Memory = Annotated[str, StringConstraints(pattern=r"^\d+[KMGT]$")]


class Resources(BaseModel):
    """One job's share of a cluster, in sbatch's words; what is not given is left to the row, or to the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="always")

    time: Time | None = Field(None, description="limit, as sbatch has it: minutes, HH:MM:SS or D-HH:MM:SS")
    mem: Memory | None = Field(None, description="memory on each node, as 16G")
    cpus: PositiveInt | None = Field(None, description="processors for each process")
    gpus: NonNegativeInt | None = Field(None, description="GPUs on each node; each has a process")
    nodes: PositiveInt | None = Field(None, description="nodes of one job")
    partition: str | None = Field(None, description="of the cluster")
    account: str | None = Field(None, description="that is charged")
    sbatch: tuple[Option, ...] = Field((), description="more options of sbatch, as qos=high exclusive")

    def overridden(self, by: "Resources") -> "Resources":
        """These, with whatever `by` names in their place."""
        return self.model_copy(update={name: value for name, value in by if value not in (None, ())})

    @property
    def minutes(self) -> int:
        """The time limit in minutes, begun ones included."""
        days, _, clock = (self.time or "5").rpartition("-")
        parts = [int(part) for part in clock.split(":")]
        if days or len(parts) == 3:  # hours first
            seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
        else:
            seconds = sum(part * unit for part, unit in zip(parts, (60, 1), strict=False))
        return -(-(int(days or 0) * 86400 + seconds) // 60)

    @property
    def tasks(self) -> int:
        """Processes on each node: one for each GPU."""
        return max(self.gpus or 0, 1)

    def slurm(self) -> dict[str, Any]:
        """As submitit's SlurmExecutor takes them."""
        others = dict(option.lstrip("-").partition("=")[::2] for option in self.sbatch)
        asked = {
            "time": self.minutes,
            "mem": self.mem,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "nodes": self.nodes,
            "ntasks_per_node": self.tasks,
            "partition": self.partition,
            "account": self.account,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        return given | {"additional_parameters": {name: value or True for name, value in others.items()}}


_ONE_CORE = Resources(time="00:30:00", mem="4G", cpus=1, nodes=1)
_ONE_GPU = Resources(time="1-00:00:00", mem="64G", cpus=8, gpus=1, nodes=1)
EIGHT_GPUS = Resources(mem="256G", gpus=8)
"""What a row of the GLIP-style model asks for at paper scale: its dense model alone takes more than 1,000 GPU hours."""
RESOURCES: dict[Scale, dict[str, Resources]] = {
    "smoke": {
        kind: _ONE_CORE.model_copy(update={"time": "00:10:00", "mem": "3G"})
        for kind in ("pretrain", "compress", "finetune")
    },
    "desk": {
        "pretrain": _ONE_CORE.model_copy(update={"time": "12:00:00", "mem": "8G"}),
        "compress": _ONE_CORE,
        "finetune": _ONE_CORE,
    },
    "paper": {
        "pretrain": _ONE_GPU.model_copy(update={"time": "2-00:00:00"}),
        "compress": _ONE_GPU,
        "finetune": _ONE_GPU,
    },
}
"""By scale and kind of run. Desk results are those of one compute thread."""
DRAWING = _ONE_CORE.model_copy(update={"time": "02:00:00", "cpus": 2})
"""Of a job that draws data."""
