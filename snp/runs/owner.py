"""Who does a run: noted in its folder while it goes on, and left there by a process that is killed."""

import os
import socket
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from snp.processes import mark


class Owner(BaseModel):
    """For people its process, machine, SLURM's job and since when; for programs the `mark` of the process."""

    model_config = ConfigDict(frozen=True)

    process: int
    host: str
    since: str
    job: Annotated[str, Field(pattern=r"^\d+$")] | None = None
    mark: str | None = None

    @classmethod
    def here(cls) -> "Owner":
        """This process."""
        return cls(
            process=os.getpid(),
            host=socket.gethostname(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            job=os.environ.get("SLURM_JOB_ID"),
            mark=mark(os.getpid()),
        )

    @classmethod
    def from_json(cls, about: dict[str, Any]) -> "Owner | None":
        """What a file says; None where one cannot make it out."""
        try:
            return cls.model_validate(about)
        except ValidationError:
            return None

    @property
    def lives(self) -> bool:
        """Whether it is a process of this machine that goes on."""
        return self.mark is not None and self.mark == mark(self.process)

    def __str__(self) -> str:
        told = {"process": self.process, "host": self.host, "job": self.job, "since": self.since}
        return ", ".join(f"{name} {value}" for name, value in told.items() if value)
