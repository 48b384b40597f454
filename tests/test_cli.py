"""The command: one clear line and exit code 2 for bad input, and tables without torch."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic import MANIFEST, fill

import snp
from snp.cli import main
from snp.compression.aliases import ALIASES
from snp.compression.registry import methods
from snp.experiment.labels import find
from snp.experiment.tables import TABLES, rows
from snp.runs.store import Store


@pytest.fixture
def results(tmp_path: Path) -> Path:
    fill(Store(tmp_path / "results"), find("scenes/dense@100", "desk"), [0.90, 0.91])
    return tmp_path / "results"


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line a failing command prints."""
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.startswith("snp: ") and error.count("\n") == 1
    return error


def test_a_share_above_one_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    error = fails(capsys, "run", "scenes/snp@60", "--keep", "1.5", "--out", str(tmp_path / "runs"))
    assert "--keep: must lie in (0, 1], got 1.5" in error
    assert not (tmp_path / "runs").exists()


def test_an_unknown_row_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert "near: scenes/snp@60" in fails(capsys, "run", "scenes/snpp@60")


def test_an_unknown_table_names_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tables: table1" in fails(capsys, "table", "tabel1")


def test_a_negative_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--seed: must be 0 or more" in fails(capsys, "run", "scenes/snp@60", "--seed", "-1")


def test_a_result_cut_in_half_is_named_by_every_command_that_reads_it(
    capsys: pytest.CaptureFixture[str], results: Path
) -> None:
    path = Store(results).folder(find("scenes/dense@100", "desk").finetune(1, "refcoco+")) / "result.json"
    path.write_bytes(path.read_bytes()[:300])
    for command in (
        ["table", "table1"],
        ["rows", "table1"],
        ["claims"],
        ["run", "scenes/dense@100", "--dry-run"],
    ):
        assert f"{path}: not valid JSON" in fails(capsys, *command, "--out", str(results))


def test_an_option_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["table", "table1", "--frmt", "csv"])
    assert exit.value.code == 2
    assert "--frmt" in capsys.readouterr().err


def test_rows_are_listed_with_the_state_of_every_seed_and_the_time_left(
    capsys: pytest.CaptureFixture[str], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    store, row = Store(results), find("scenes/dense@100", "desk")
    (store.folder(row.finetune(1, "refcoco")) / "result.json").unlink()
    main(["rows", "table1", "--data", "scenes", "--out", str(results)])
    lines = {text.split()[0]: " ".join(text.split()) for text in capsys.readouterr().out.splitlines() if "@" in text}
    # of seed 1 one run is missing, of seed 2 all four; every finished run took a minute
    assert lines["scenes/dense@100"] == "scenes/dense@100 dense yes done 3 of 4 runs missing missing missing 13 min"
    assert lines["scenes/snp@40"] == "scenes/snp@40 60% yes missing missing missing missing missing 10 min"


def test_without_a_table_the_tables_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["rows"])
    listed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in listed if line and line[0] in TABLES] == [
        [name, str(len(rows(name, "desk")))] for name in TABLES
    ]


@pytest.mark.slow
def test_claims_of_all_tables_fit_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    main(["claims"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(title in line for line in lines) for title in ("scenes: ", "GQA", "Flickr30k", "COCO"))
    assert any("decides of 3" in line for line in lines)


def test_the_dense_row_stands_among_those_it_is_compared_with(
    capsys: pytest.CaptureFixture[str], results: Path
) -> None:
    main(["table", "--out", str(results)])
    assert capsys.readouterr().out.startswith("scenes: dense\n")
    fill(Store(results), find("scenes/snp@60", "desk"), [0.90])
    main(["table", "--out", str(results)])
    text = capsys.readouterr().out
    assert text.startswith("scenes: 40% of all parameters removed\n") and text.count(" removed\n") == 1


def test_differences_over_fewer_benchmarks_are_marked(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    for label in ("scenes/snp@60", "scenes/snp-prune-only@60"):
        fill(Store(results), find(label, "desk"), [0.90])
    main(["table", "--out", str(results)])
    out = capsys.readouterr().out
    marked = [line.split()[0] for line in out.splitlines() if "‡" in line and not line.startswith("-")]
    assert marked == ["snp-prune-only"] and "‡ over RefCOCO alone, others over 3 benchmarks" in out


def test_of_a_table_that_is_done_a_dry_run_says_where_scripts_can_be_seen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for row in rows("table1", "smoke"):
        fill(Store(tmp_path / "runs"), row, [0.5])
        Store(tmp_path / "runs").save(row.pretrain, MANIFEST, {"params": {}, "splits": {}})
        for run in row.runs(0):
            (Store(tmp_path / "runs").folder(run) / "weights.safetensors").touch()
    main(["launch", "table1", "--scale", "smoke", "--out", str(tmp_path / "runs"), "--dry-run"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "nothing to submit: all runs are done"
    main(second.partition(": snp ")[2].replace("NEW-FOLDER", str(tmp_path / "new")).split())
    assert "#SBATCH" in capsys.readouterr().out


def test_a_dry_run_lists_what_it_would_do_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(
        [
            "run",
            "scenes/snp@60",
            "--seed",
            "1",
            "--scale",
            "smoke",
            "--dry-run",
            "--out",
            str(tmp_path / "runs"),
        ]
    )
    listed = [text.split() for text in capsys.readouterr().out.splitlines()]
    row = find("scenes/snp@60", "smoke")
    assert listed == [["missing", run.slug] for run in row.runs(1)]
    assert not (tmp_path / "runs").exists()


def test_a_whole_table_can_be_run_and_its_first_seed_comes_first(
    capsys: pytest.CaptureFixture[str], results: Path
) -> None:
    main(["run", "table1", "--dry-run", "--out", str(results)])
    listed = [text.split()[1] for text in capsys.readouterr().out.splitlines()]
    store = Store(results, base=Store.at("desk"))
    runs = {
        run
        for row in rows("table1", "desk")
        for seed in row.seeds
        for run in row.runs(seed)
        if store.state(run) != "done"
    }
    seeds = [int(slug.split("-seed")[1][0]) for slug in listed]
    assert sorted(listed) == sorted(run.slug for run in runs)
    assert seeds == sorted(seeds)


def test_a_run_needs_a_row_and_a_table_takes_no_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert "names no row" in fails(capsys, "run")
    assert "does not go with a whole table (table1)" in fails(capsys, "run", "table1", "--keep", "0.5")


@pytest.mark.slow
def test_a_table_can_be_had_as_csv_and_as_a_figure(
    capsys: pytest.CaptureFixture[str], results: Path, tmp_path: Path
) -> None:
    main(["table", "table1", "--format", "csv", "--out", str(results)])
    assert capsys.readouterr().out.startswith("data,method,label,kind,group,target,benchmark,")
    fill(Store(results), find("scenes/snp@60", "desk"), [0.90])
    main(["figure", "table1", "--png", str(tmp_path / "figure.png"), "--out", str(results)])
    assert (tmp_path / "figure.png").exists()


@pytest.mark.slow
def test_a_table_renders_without_torch_in_under_three_seconds(results: Path) -> None:
    code = (
        "import sys; from snp.cli import main; "
        f"main(['table', 'table1', '--format', 'markdown', '--out', {str(results)!r}]); "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    start = time.process_time(), time.monotonic()
    before = _children_seconds()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| dense (2 of 5)" in done.stdout
    assert _children_seconds() - before < 3, f"{time.monotonic() - start[1]:.1f} s of wall time"


def _children_seconds() -> float:
    """Processor time of finished child processes: other work on the machine does not count."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_all_methods_are_listed_with_kind_stage_and_modes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["methods"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    entries = re.findall(r"^\S.*\n(?: .*\n)+", printed, re.MULTILINE)
    lines = {entry.split()[0]: " ".join(entry.split()) for entry in entries}
    assert list(lines) == [*methods(), *ALIASES]
    assert all(cls.kind in lines[name] and cls.stage in lines[name] for name, cls in methods().items())
    assert "corrected, official" in lines["multiflow"] and "official" not in lines["snp"]
    assert "found on the task" in lines["task-ticket"] and "found on pre-training" in lines["universal-ticket"]
    assert "omp" in lines["magnitude"] and "prune=False" in lines["snp-cross-only"]


def test_it_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"snp {snp.__version__}\n"
