"""What towers start from: random and pre-trained ones are different runs, and a run says which of them it is."""

from pathlib import Path

import pytest
import torch
from test_pretrained import SMALL, deit, scrambled
from timm.models.deit import VisionTransformerDistilled

from snp.cli import main
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.rows import Row
from snp.experiment.spec import dense, parse
from snp.models.family import build
from snp.models.named import Weights, identity
from snp.models.pretrained import load_vision
from snp.models.towers import vision_tower
from snp.runs.begun import meant
from snp.runs.store import Store
from snp.runs.submitted import keep
from snp.training import stages, start
from snp.training.setup import Setup
from snp.training.start import fill_towers

NAMED = Weights(vision="deit_base_patch16_224", text="ViT-L-14/openai")
RUN = ("run", "real/snp@60", "--scale", "paper", "--dry-run")
BOTH = ("--vision-weights", "deit_base_patch16_224", "--text-weights", "ViT-L-14/openai")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deit.pth"
    torch.save(deit().state_dict(), path)
    return path


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Whatever a command prints; one line where it refuses."""
    try:
        main([*arguments])
    except SystemExit:
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said
    return capsys.readouterr().out


# -- what a run is -------------------------------------------------------------------------------------------------


def test_random_towers_and_those_of_a_name_and_of_a_file_are_runs_of_their_own(file: Path) -> None:
    rows = [
        find("real/snp@60", "paper").starting(weights)
        for weights in (Weights(), NAMED, Setup(vision_weights=str(file)).weights)
    ]
    for kind in range(3):  # dense, compressed, fine-tuned
        assert len({row.runs(0)[kind].slug for row in rows}) == 3
    run = rows[1].runs(0)[-1]
    assert parse(run.canonical(), "spec") == run and run.parents()[0].canonical()["weights"] == NAMED.model_dump()


def test_without_weights_a_run_is_what_it_was_before_it_could_have_any() -> None:
    assert "weights" not in dense("desk", "scenes").canonical()
    assert (Store.at("desk").root / dense("desk", "scenes").slug).is_dir()


def test_a_file_is_known_by_what_it_holds_and_not_by_its_name(file: Path, tmp_path: Path) -> None:
    before = identity(str(file), "--vision-weights")
    assert before.startswith("sha256:") and len(before) == 7 + 64
    moved = file.rename(tmp_path / "moved.bin")
    assert identity(str(moved), "--vision-weights") == before
    moved.write_bytes(moved.read_bytes() + b"\x00")
    assert identity(str(moved), "--vision-weights") != before


def test_glip_below_paper_scale_takes_towers_of_the_model_that_has_none_of_them() -> None:
    small, large = (dense(scale, data, "glip", NAMED) for scale, data in (("smoke", "scenes"), ("paper", "real")))
    assert (small.weights, small.parent) == (NAMED, dense("smoke", "scenes"))
    assert (large.weights, large.parent) == (NAMED, None)


# -- what a command asks for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [RUN, ("launch", "table1", "--scale", "paper"), ("pretrain", "--scale", "paper")])
def test_paper_scale_asks_for_weights_or_for_a_word_that_there_are_none(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for given, missing in (((), "--vision-weights and --text-weights"), (BOTH[:2], "--text-weights")):
        said = says(capsys, *command, *given, "--out", str(tmp_path / "runs"))
        assert said.startswith(f"snp: {missing}: missing") and "or say --random-towers" in said
    assert not any(tmp_path.iterdir())


def test_what_is_named_is_what_is_run(file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--out", str(tmp_path / "runs"))
    of = {
        option: says(capsys, *RUN, *options, *option)
        for option in (BOTH, ("--random-towers",), ("--random-towers", "--vision-weights", str(file)))
    }
    assert len({*of.values()}) == 3
    assert dense("paper", "real", weights=NAMED).slug in of[BOTH]
    assert dense("paper", "real").slug in of["--random-towers",]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((*RUN, *BOTH, "--random-towers"), "--random-towers: both towers have weights (leave it out)"),
        (("run", "scenes/snp@60", "--random-towers"), "--random-towers: says nothing at scale desk (leave it out)"),
        (
            (*RUN, "--vision-weights", "none.pth", "--random-towers"),
            "none.pth: file not found (give a file (--vision-wei",
        ),
        ((*RUN, "--vision-weights", "", "--random-towers"), "--vision-weights: is empty"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem in says(capsys, *arguments)


# -- which runs of a folder are meant ------------------------------------------------------------------------------


def started(row: Row, store: Store) -> Weights:
    (found,) = meant([row], store)
    return found.weights


def test_what_reads_a_folder_takes_the_weights_that_its_runs_started_from(tmp_path: Path) -> None:
    row, store = find("real/snp@60", "paper"), Store(tmp_path)
    assert started(row, store) == Weights()  # nothing is there yet
    store.begin(row.starting(NAMED).runs(0)[1])  # a compression tells it too
    assert started(row, store) == started(row, Store(tmp_path / "own", base=store)) == NAMED
    assert started(find("scenes/snp@60", "desk"), store) == Weights()
    store.begin(row.pretrain)
    with pytest.raises(InputError, match=r"start from deit_base_patch16_224 and ViT-L-14/openai, others from random"):
        meant([row], store)
    assert started(row, Store(tmp_path, weights=NAMED)) == NAMED
    assert started(row, Store(tmp_path, weights=Weights())) == Weights()


def test_a_launch_whose_jobs_wait_is_found_too(tmp_path: Path) -> None:
    keep(Store(tmp_path), "slurm", "7", Path("code"), {}, NAMED)
    assert started(find("real/snp@60", "paper"), Store(tmp_path)) == NAMED


def test_tables_states_and_figures_may_name_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = Store(tmp_path)
    for weights in (NAMED, Weights()):
        store.begin(find("real/snp@60", "paper").starting(weights).runs(0)[1])
    for command in ("rows", "status", "cancel", "table", "claims", "figure"):
        where = (command, "table1", "--scale", "paper", "--out", str(tmp_path))
        assert "name yours: --vision-weights and --text-weights, or --random-towers" in says(capsys, *where)
        assert "name yours" not in says(capsys, *where, "--random-towers")


# -- what is loaded ------------------------------------------------------------------------------------------------


def test_a_distilled_deit_gives_all_but_its_teachers_token_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = dict(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=4, num_classes=10)
    model, path = scrambled(VisionTransformerDistilled(**shape)), tmp_path / "deit_distilled.pth"
    torch.save({"model": model.state_dict()}, path)
    tower = vision_tower(SMALL)
    left = ["dist_token", "head_dist.bias", "head_dist.weight"]
    assert load_vision(tower, str(path)) == left
    theirs = model.state_dict()
    for name, tensor in tower.named_parameters():
        assert name == "pos_embed" or torch.equal(tensor, theirs[name])
    assert torch.equal(tower.pos_embed, torch.cat([theirs["pos_embed"][:, :1], theirs["pos_embed"][:, 2:]], 1))

    setup = Setup(vision_weights=str(path))
    began = fill_towers(build(SMALL), setup.weights, setup, Vocabulary([]))
    hash = setup.weights.vision.removeprefix("sha256:")
    assert began == {"vision": {"name": "deit_distilled.pth", "sha256": hash, "left_out": left}}
    assert capsys.readouterr().err == f"snp: {path}: of a distilled model, left out: {', '.join(left)}\n"


def test_one_that_was_not_distilled_leaves_nothing_out(file: Path) -> None:
    assert load_vision(vision_tower(SMALL), str(file)) == []


def test_a_run_does_not_go_on_with_other_weights_than_it_was_begun_with(file: Path, tmp_path: Path) -> None:
    setup, model = Setup(vision_weights=str(file)), build(SMALL)
    wanted = setup.weights
    torch.save(deit(qkv_bias=True).state_dict() | {"more": torch.zeros(1)}, file)
    for other in (setup, Setup()):
        with pytest.raises(InputError, match=r"--vision-weights: .*, where the run starts from sha256:"):
            fill_towers(model, wanted, other, Vocabulary([]))


def test_a_result_tells_them_by_name_and_hash(
    file: Path, smoke_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    monkeypatch.setattr(start, "load_vision", lambda tower, source: [])  # of another size than this model
    setup = Setup(vision_weights=str(file), steps=1, batch=2)
    run = dense("smoke", "scenes", weights=setup.weights)
    result = stages.run(run, Store(tmp_path / "runs", trial=setup.trial), setup=setup)
    hash = setup.weights.vision.removeprefix("sha256:")
    assert result.manifest["weights"] == {"vision": {"name": "deit.pth", "sha256": hash}}
    assert result.manifest["config"]["spec"]["weights"] == {"vision": f"sha256:{hash}"}
