"""The bench of trimming: what is kept again is what was kept, and two pieces of work are timed in turns."""

import time

import numpy as np
import pytest
import torch

from snp.bench import dual, trimming
from snp.bench.pairs import pairs
from snp.errors import InputError
from snp.models.config import DESK
from snp.models.mdetr import MDETR
from snp.runs.metrics import Trimmed
from snp.runs.store import Store
from snp.trimming.trim import Trim

SPREAD = {"mean": 0.5, "p10": 0.3, "p90": 0.7}
FOUND = Trimmed.model_validate(
    {
        **dict.fromkeys(("tokens", "heads", "flops", "flops_cached"), SPREAD),
        "tokens_deciles": np.linspace(0.3, 0.7, 11).tolist(),
        "tokens_by_layer": (0.9, 0.7, 0.5, 0.4, 0.3, 0.2),
        "heads_by_layer": (1.0,) * 6,
    }
)


@pytest.mark.parametrize("depth", [6, 12])
def test_captions_keep_what_a_run_has_measured_and_no_layer_more_than_the_one_before(depth: int) -> None:
    shares = trimming.drawn(FOUND, depth, 4000, seed=0)
    assert shares.shape == (4000, depth) and float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert bool((shares.diff(dim=1) <= 1e-6).all()) and shares.mean(1).std() > 0.08
    assert float(shares[:, 0].mean()) > 0.85 and float(shares[:, -1].mean()) < 0.3


@pytest.mark.parametrize("guide", ["text", "image"])
def test_the_desk_model_keeps_again_what_it_is_told(guide: str) -> None:
    shares = torch.linspace(1, 0.3, DESK.depth).expand(2, 3, -1)
    measured, padded = trimming.whole_model(Trim(guide=guide), shares)
    assert measured.low <= measured.ratio <= measured.high and padded == 0
    uneven = shares[0, :1] * torch.tensor([1.0, 0.7, 0.5])[:, None]
    assert trimming.whole_model(Trim(guide=guide), uneven[None].expand(2, -1, -1))[1] > 0.1


def test_a_kept_picture_is_looked_at_by_neither_where_both_keep_it() -> None:
    text = dual.dual(rounds=2, write=False)
    lines = text.splitlines()
    assert len(lines) == len(dual.SAID) * len(dual.THREADS) and all("ms dual" in line for line in lines)
    model, given = dual.Keeping(DESK).eval(), dual._captions(1, 4)
    model.kept = MDETR.see(model, given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.vision, "forward_features", None)
        assert model(*given).logits_KBQS.isfinite().all()


def test_pairs_tell_the_ratio_of_what_is_timed_whichever_comes_first() -> None:
    measured = pairs(lambda at: time.sleep(0.004), lambda at: time.sleep(0.001), rounds=8)
    assert 1.5 < measured.low <= measured.ratio <= measured.high and measured.one > measured.other


def test_without_a_row_that_trims_there_is_nothing_to_measure(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no row that trims"):
        trimming.trimming(Store(tmp_path))
