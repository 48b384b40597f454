"""Nothing is said to be nothing: an empty answer, a folder that is not there, an option that nobody heeds."""

import os
import re
import shlex
import time
from contextlib import suppress
from pathlib import Path

import pytest
from processes import alive
from synthetic import MANIFEST, cost, fill

from snp.cli import main
from snp.errors import InputError
from snp.experiment.labels import find
from snp.experiment.places import NEEDED
from snp.experiment.tables import TABLES, rows
from snp.launch.status import live, statuses
from snp.report.readme import rendered
from snp.runs.store import Store
from snp.runs.submitted import records

HERE = Path(__file__).parents[1]
READING = ("rows", "status", "cancel", "table", "claims", "figure")
RENDERING = ("table", "claims", "figure")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `empty`, `other` with somebody's letter, `file`, and `one` with a single result."""
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    row = find("scenes/snp@60", "desk")
    Store(tmp_path / "one").save(row.compress(0), MANIFEST, cost(row))
    return tmp_path


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """All that a command prints, which must be something, and one line where it fails."""
    try:
        main(list(arguments))
    except SystemExit as exit:
        said = capsys.readouterr()
        assert (exit.code, said.out, said.err.count("\n")) == (2, "", 1), arguments
        return said.err
    said = capsys.readouterr()
    assert said.out.strip(), arguments
    return said.out


@pytest.mark.parametrize("command", READING)
def test_a_folder_that_is_not_there_is_an_error_of_every_command_that_only_reads(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = r"snp: --out {}: {} \(without --out it is .*results/desk\)\n"
    assert re.fullmatch(told.format("nowhere", "no such folder"), says(capsys, command, "table1", "--out", "nowhere"))
    assert re.fullmatch(told.format("file", "is no folder"), says(capsys, command, "table1", "--out", "file"))
    assert not (folder / "nowhere").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("where", ["empty", "other"])
def test_of_an_empty_folder_nothing_is_rendered(
    name: str, where: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in RENDERING:
        said = says(capsys, command, name, "--out", where)
        nothing = f"snp: {where}: holds no results of " in said and f"`snp run {name} --out {where}` makes them" in said
        assert nothing or (command == "claims" and "can test none of the paper's claims" in said)
    assert {*map(str, folder.rglob("*.png"))} == set()
    for command in ("rows", "status"):
        assert says(capsys, command, name, "--out", where).count("missing") > 5


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_a_scale_without_results_says_so_and_which_command_makes_them(
    scale: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = f" {NEEDED}" if scale == "paper" else ""
    for name in TABLES:
        for command in ("table", "figure"):
            said = says(capsys, command, name, "--scale", scale)
            if not rows(name, scale):  # type: ignore[arg-type]
                assert f"{name}: has no rows at scale {scale}" in said
                continue
            assert f"`snp run {name} --scale {scale}{needs}` makes them" in said


@pytest.mark.slow
def test_one_result_alone_is_a_table_but_no_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(capsys, "table", "table1", "--format", "markdown", "--out", "one").count("missing") > 100
    assert says(capsys, "claims", "table1", "--out", "one").count("not tested") > 10
    assert "beside the dense one, on scenes" in says(capsys, "figure", "table1", "--out", "one")
    assert "holds no results of table1 on stamps" in says(capsys, "table", "table1", "--data", "stamps", "--out", "one")


def test_a_figure_of_one_size_joins_it_to_the_dense_model(folder: Path) -> None:
    from snp.report.figures import curves

    store = Store(folder / "two")
    fill(store, find("scenes/dense@100", "desk"), [0.9])
    fill(store, find("scenes/upop@60", "desk"), [0.8])
    (curve,) = curves("table1", store, "desk", "scenes")
    assert curve.drawn.removed.tolist() == pytest.approx([0.0, 0.4])
    assert curve.drawn.score.tolist() == pytest.approx([90.0, 80.0])


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("run scenes/snp@60 --data-root empty --dry-run", "--data-root: is of published benchmarks, but scenes"),
        ("run table1 --data-root empty", "but scenes and stamps are drawn"),
        ("run scenes/snp@60 --steps 1 --shortest 99 --dry-run", "--shortest: is of published benchmarks, but scenes"),
        ("run scenes/snp@60 --loaders 2 --dry-run", "--loaders: is of published benchmarks, but scenes"),
        ("launch table2 --data-root empty --dry-run", "--data-root: is of published benchmarks"),
        ("pretrain --data-root empty", "--data-root: is of published benchmarks"),
        ("pretrain --scale paper --random-towers", "--data-root: missing"),
        ("data make scenes --data-root empty", "--data-root: is not an option of `snp data make scenes`"),
        ("data make scenes --png page.png", "--png: is not an option of `snp data make scenes`"),
        ("data show scenes --source empty", "--source: is not an option of `snp data show scenes`"),
        ("data check refcoco --root empty", "--root: is not an option of `snp data check refcoco`"),
        ("figure scaling --out empty", "are not of this figure"),
        ("bench plan --scale smoke", "are not of `snp bench plan`"),
        ("reproduce table1 --from-results --out empty", "--out: does not go with --from-results"),
        ("reproduce table1 --scale paper", f"`snp run table1 --scale paper {NEEDED}`"),
        ("table table1b --data stamps", "has no rows at scale desk (they are of scenes)"),
        ("readme file", "has no part to render"),
    ],
)
def test_an_option_that_nothing_heeds_is_refused(
    command: str, problem: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNP_DATA", str(folder / "data"))
    before = sorted(folder.rglob("*"))
    assert problem in says(capsys, *command.split())
    assert sorted(folder.rglob("*")) == before and not (HERE / "results" / "paper").exists()


@pytest.mark.parametrize(
    "text",
    [
        "<!-- begin brief table1b scenes -->\nno end\n",
        "<!-- begin brief table1b scenes -->\nno end, and mine\n<!-- begin claims -->\n<!-- end -->\n",
        "<!-- begin brief table1b, scenes -->\n<!-- end -->\n<!-- begin claims -->\n<!-- end -->\n",
    ],
)
def test_a_part_of_a_readme_that_does_not_end_takes_nothing_with_it(text: str) -> None:
    with pytest.raises(InputError, match=r"README.md: has a part that does not end"):
        rendered(text, Store.at("desk"))


def test_claims_of_a_store_without_results_are_not_an_empty_part(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no results of table1, table2"):
        rendered("<!-- begin claims -->\n<!-- end -->\n", Store(tmp_path))


def test_options_lead_back_to_a_store() -> None:
    assert Store.at("desk").options("desk") == ""
    assert Store.at("smoke").options("smoke") == " --scale smoke"
    assert Store("runs").options("desk") == " --out runs"
    assert Store("runs").options("paper") == " --scale paper --out runs"


@pytest.mark.slow
def test_the_hint_of_a_launch_names_the_runs_that_it_started(
    tmp_path: Path, smoke_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNP_DATA", str(smoke_data))
    monkeypatch.chdir(tmp_path)
    main(["launch", "table3", "--scale", "smoke", "--cluster", "local", "--out", "runs"])
    hint = re.search(r"see `snp (.*)`", capsys.readouterr().out)
    assert hint and hint[1] == "status table3 --scale smoke --out runs"
    main(shlex.split(hint[1]))
    assert re.search(r"\d+ (running|queued)", capsys.readouterr().out)
    main(["cancel", *shlex.split(hint[1])[1:]])
    store, runs = Store("runs"), [run for row in rows("table3", "smoke") for run in row.runs(0)]
    limit = time.monotonic() + 120
    while live(statuses(runs, store)) or any(alive(int(record.job)) for record in records(store)):
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        assert time.monotonic() < limit
        time.sleep(0.1)


LABEL = re.compile(r"\b(?:scenes|stamps|real)/[\w+-]+@s?\d+(?::[\w+]+)?")


def examples() -> list[tuple[str, str]]:
    """Every row that a text of the project names as an example, and the file that does."""
    texts = [HERE / "README.md", *(HERE / "snp" / "cli").glob("*.py")]
    texts += [path for pattern in ("slurm/*.md", "slurm/*.sh", "docs/*.md") for path in sorted(HERE.glob(pattern))]
    found = [(label, path.name) for path in texts for label in LABEL.findall(path.read_text(encoding="utf-8"))]
    return [(label, name) for label, name in found if label not in ("scenes/NAME@60", "scenes/my-method@60")]


@pytest.mark.parametrize(("label", "file"), examples())
def test_a_row_that_is_named_as_an_example_exists(label: str, file: str) -> None:
    assert find(label, "paper" if label.startswith("real/") else "desk").label == label


def test_the_rows_that_scripts_start_by_themselves_exist_at_every_scale() -> None:
    scripts = [path.read_text(encoding="utf-8") for path in (HERE / "slurm").glob("*.sh")]
    defaults = [row for text in scripts for row in re.findall(r"\$\{ROW:-\$DATA(/[^}]+)\}", text)]
    assert len(defaults) == 4
    for default in defaults:
        for data, scale in (("scenes", "smoke"), ("scenes", "desk"), ("stamps", "desk"), ("real", "paper")):
            assert find(data + default, scale).data == data
