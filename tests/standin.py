"""A SLURM that takes jobs and never runs them: what it was asked for is in a file. tests/slurm has a real one."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = """\
#!{python}
import json, os, re, sys, time
from pathlib import Path
here = Path({here!r})
name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
about = json.loads((here / "about.json").read_text())
jobs = json.loads((here / "jobs.json").read_text())
if name == "scontrol":
    print(about["config"])
if name == "sacct":
    print(about["accounts"], end="")
if name == "squeue":
    for number, count in jobs.items():
        for element in ([number] if count is None else [number + "_" + str(i) for i in range(count)]):
            print(element + "|PENDING|Priority")
if name == "scancel":
    jobs = {{number: count for number, count in jobs.items() if number not in arguments}}
    (here / "jobs.json").write_text(json.dumps(jobs))
if name == "sbatch":
    with open(here / "begun", "a") as file:
        file.write(".")
    array = re.search(r"^#SBATCH --array=0-([0-9]+)", Path(arguments[-1]).read_text(), re.MULTILINE)
    count = None if array is None else int(array[1]) + 1
    time.sleep(about["seconds"])
    if (count or 1) > about["elements"]:
        sys.exit("sbatch: error: Batch job submission failed: Invalid job array specification")
    if len(jobs) >= about["most"]:
        sys.exit("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy")
    jobs[str(100 + (here / "begun").stat().st_size)] = count
    (here / "jobs.json").write_text(json.dumps(jobs))
    print("Submitted batch job", list(jobs)[-1])
"""


@dataclass(frozen=True)
class Slurm:
    """Where it is."""

    folder: Path

    @property
    def path(self) -> str:
        """The search path that finds it."""
        return f"{self.folder}:{os.environ['PATH']}"

    @property
    def jobs(self) -> dict[str, int | None]:
        """Number of what it has taken and not cancelled -> elements of an array."""
        return json.loads((self.folder / "jobs.json").read_text())

    @property
    def begun(self) -> int:
        """How often sbatch was called."""
        begun = self.folder / "begun"
        return begun.stat().st_size if begun.exists() else 0

    def become(
        self, elements: int = 1001, most: int = 10**6, seconds: float = 0, config: str = "", accounts: str = ""
    ) -> None:
        """Take so many elements of an array, and so many jobs, each within `seconds`; sacct says `accounts`."""
        about = {
            "elements": elements,
            "most": most,
            "seconds": seconds,
            "accounts": accounts,
            "config": config or f"MaxArraySize            = {elements}",
        }
        (self.folder / "about.json").write_text(json.dumps(about))


def slurm(folder: Path, elements: int = 1001, most: int = 10**6, seconds: float = 0, config: str = "") -> Slurm:
    """Its programs in a folder."""
    folder.mkdir()
    (folder / "jobs.json").write_text("{}")
    found = Slurm(folder)
    found.become(elements, most, seconds, config)
    for name in ("sbatch", "srun", "sacct", "squeue", "scontrol", "scancel"):
        (folder / name).write_text(PROGRAM.format(python=sys.executable, here=str(folder)))
        (folder / name).chmod(0o755)
    return found
