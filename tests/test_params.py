"""The table of parameters: numbers of a real model, and the sizes of the paper without its weights."""

import re

import pytest
import torch

from snp.bench import params
from snp.bench.params import dense, parameters
from snp.cli import main
from snp.compression.count import count
from snp.compression.tower import towers_of
from snp.errors import InputError
from snp.models.config import GLIP_PAPER, GLIP_SMOKE, PAPER, SMOKE
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR, TOWERS


@pytest.mark.parametrize(("kind", "config"), [(MDETR, SMOKE), (GLIP, GLIP_SMOKE)])
def test_numbers_are_those_of_a_real_model(kind, config):
    model = kind(config)
    towers = towers_of(model, TOWERS)
    counted, found = count(model, towers), parameters(*dense(config))
    assert found == parameters(model, towers)
    assert {"vision": found.vision, "text": found.text} == counted.towers and found.total == counted.stored
    assert found.words == model.text.token_embedding.weight.numel()
    assert found.towers == sum(p.numel() for tower in (model.vision, model.text) for p in tower.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("config", [PAPER, GLIP_PAPER])
def test_at_paper_scale_the_towers_are_deit_b_and_clip_l_and_no_weight_is_made(config):
    model, towers = dense(config)
    assert {p.device for p in model.parameters()} == {torch.device("meta")}
    found = parameters(model, towers)
    assert found.vision == found.text == 12 * (4 * (768 * 768 + 768) + 768 * 3072 + 3072 + 3072 * 768 + 768)
    assert found.words == 49_408 * 768
    assert sum(p.numel() for p in model.vision.parameters()) == pytest.approx(86e6, rel=0.03)  # DeiT-B
    assert sum(p.numel() for p in model.text.parameters()) == pytest.approx(123e6, rel=0.01)


def test_what_is_removed_is_removed_from_the_linear_maps_in_proportion():
    whole = params.Parameters(vision=300, text=100, words=50, around=10, fusion=40)
    less = whole.less(100)
    assert (less.vision, less.text, less.words, less.around, less.fusion) == (225, 75, 50, 10, 40)
    assert (whole.total, less.total, whole.towers, less.towers) == (500, 400, 460, 360)


@pytest.mark.slow
def test_the_command_prints_the_sizes_and_what_the_papers_two_statements_mean_together(capsys):
    main(["params", "--model", "mdetr"])
    printed = capsys.readouterr().out
    rows = {line[:28].strip(): re.findall(r"[\d.]+(?=[M%])", line[28:]) for line in printed.splitlines()}
    whole = parameters(*dense(PAPER))
    assert rows["total"][0] == f"{whole.total / 1e6:.2f}"
    assert rows["removed of all"][:3] == ["0.0", "35.0", "40.0"]
    assert rows["removed of the towers"][3:] == ["40.0", "45.0"]
    for column in range(5):
        parts = (
            "vision tower, linear maps",
            "text tower, linear maps",
            "token embedding",
            "norms, patches, positions",
            "fusion and heads",
        )
        assert sum(float(rows[part][column]) for part in parts) == pytest.approx(float(rows["total"][column]), abs=0.03)
    low, high = (100 * share * whole.total / whole.towers for share in (0.35, 0.4))
    assert f"is {low:.1f}% to {high:.1f}% of the towers" in printed and f"both hold at 40.0% to {high:.1f}%" in printed
    main(["params", "--model", "glip"])
    assert "never hold together" in capsys.readouterr().out


@pytest.mark.slow
def test_a_size_that_a_model_cannot_have_is_refused(monkeypatch):
    monkeypatch.setattr(params, "REDUCTIONS", (0.9,))
    with pytest.raises(InputError, match="must survive"):
        params.table("paper", "mdetr")
