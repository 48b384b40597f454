"""One SLURM for all of these tests, and the smoke data that their jobs read."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing, read

MEMORY = 8000
"""MB of a node: two smoke jobs at a time."""


@pytest.fixture(scope="session")
def slurm(smoke_data: Path) -> Iterator[Cluster]:
    """A SLURM whose commands this process, and all that it starts, finds; afterwards nothing of it is left."""
    assert not missing(), "see `nox -s slurm-tests`"
    (smoke_data / "scenes-desk").symlink_to("scenes-smoke")
    # pytest's folders may be too deep for sockets
    with tempfile.TemporaryDirectory(prefix="snp-slurm-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)
        with Cluster(folder, MEMORY) as cluster:
            for name, value in (*cluster.environment.items(), ("SNP_DATA", smoke_data), ("OMP_NUM_THREADS", 1)):
                patch.setenv(name, str(value))
            yield cluster
        patch.undo()  # of what this process itself was given
        left = [path for path in Path("/proc").glob("[0-9]*/environ") if str(folder).encode() in read(path)]
    assert not left, f"processes of the cluster are left: {left}"
