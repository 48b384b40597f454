"""One SLURM for all of these tests, and the smoke data that their jobs read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing

MEMORY = 8000
"""MB of a node: two smoke jobs at a time."""


@pytest.fixture(scope="session")
def slurm(smoke_data: Path) -> Iterator[Cluster]:
    """A SLURM whose commands this process, and all that it starts, finds; afterwards nothing of it is left."""
    assert not missing(), "see `nox -s slurm-tests`"
    folder = Path(tempfile.mkdtemp(prefix="snp-slurm-"))  # pytest's folders may be too deep for sockets
    folder.chmod(0o755)
    (smoke_data / "scenes-desk").symlink_to("scenes-smoke")
    with pytest.MonkeyPatch.context() as patch, Cluster(folder, MEMORY) as cluster:
        # states are saved at every step's end where a signal asks for it, and else not in so short a run
        for name, value in (*cluster.environment.items(), ("SNP_DATA", smoke_data), ("OMP_NUM_THREADS", 1)):
            patch.setenv(name, str(value))
        yield cluster
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if str(folder).encode() in _read(path)]
    shutil.rmtree(folder)
    assert not left, f"processes of the cluster are left: {left}"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
