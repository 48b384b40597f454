"""Models, data and runs that tests are handed. It loads no torch: with several processes, pytest's own waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from towers import TwoTowers

    from snp.runs.store import Store

collect_ignore = ["slurm"]  # a SLURM is needed; named on the command line, as `nox -s slurm-tests` does, they run


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models are tiny, and all cores are taken by processes of tests."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(name="two_towers")
def two_towers_fixture() -> TwoTowers:
    """A fresh model per test."""
    from towers import TwoTowers

    return TwoTowers()


@pytest.fixture(scope="session")
def smoke_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for SNP_DATA with the drawn scenes of smoke scale, fewer than usual."""
    from snp.data.drawn import scenes

    folder = tmp_path_factory.mktemp("data")
    scenes.make(folder / "scenes-smoke", seed=0, train=80, test=8, pretrain_val=4, workers=1)
    return folder


@pytest.fixture(scope="session")
def smoke_dense(tmp_path_factory: pytest.TempPathFactory, smoke_data: Path) -> Store:
    """A store that holds the finished dense run of smoke scale, from which all rows start."""
    from snp.experiment.spec import Pretrain
    from snp.runs.store import Store
    from snp.training import stages

    store = Store(tmp_path_factory.mktemp("dense"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNP_DATA", str(smoke_data))
        stages.run(Pretrain(scale="smoke", data="scenes"), store)
    return store


@pytest.fixture(scope="module")
def processes(smoke_data: Path) -> Iterator[BaseContext]:
    """Processes of one thread, forked from a fresh interpreter that has loaded the stages; state saved at every log."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SNP_DATA", smoke_data), ("SNP_SAVE_EVERY", 0), ("OMP_NUM_THREADS", 1)):
            patch.setenv(name, str(value))
        context = get_context("forkserver")
        context.set_forkserver_preload(["snp.training.stages", "snp.sharing.snp"])
        yield context
