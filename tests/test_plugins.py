"""Methods of others: from a file and from an installed package, in every process of a run, and in its manifest."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from towers import PATHS, two_towers

import snp
from snp.cli import main
from snp.compression import plugins, registry
from snp.compression.registry import get, methods
from snp.errors import InputError
from snp.experiment.labels import find
from snp.launch.work import Place
from snp.runs.store import Store
from snp.training.setup import Setup

METHOD = """
import torch
from baselines.ranking import best_within, groups, quantiles
from snp.compression.method import OneShot
from snp.compression.registry import register

@register
class Last(OneShot):
    "Keeps the last units."
    name, kind, stage = "{name}", "structured", "one-shot"
    source, summary = "a test", "keep the last units"

    def plan(self, problem):
        return best_within(problem, quantiles({{group: torch.arange(n) for group, n in groups(problem).items()}}))
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a method of a name of its own; what it registers is forgotten at the end."""
    methods()  # those of the project register once in a process
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setenv(plugins.ENVIRONMENT, "")
    path = tmp_path / "mine.py"
    path.write_text(METHOD.format(name="last-units"), encoding="utf-8")
    return path


def test_a_method_of_a_file_is_one_like_others(file: Path) -> None:
    plugins.use([file])
    assert list(methods())[-1] == "last-units"
    row = find("scenes/last-units@70", "smoke")
    assert row.method == "last-units"
    small, plan = snp.compress(two_towers(), "last-units", keep=0.7, towers=PATHS)
    assert plan.keep and not any(kept[0] for kept in plan.keep.values())
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in two_towers().parameters())


def test_what_was_imported_is_told_with_its_hash(file: Path) -> None:
    assert "mine.py" not in plugins.load()
    plugins.use([file, file])
    assert plugins.load()["mine.py"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.slow
def test_processes_that_are_started_know_it_too(file: Path) -> None:
    plugins.use([file])
    code = "from snp.compression.registry import get; print(get('last-units').summary)"
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given, check=True)
    assert done.stdout == "keep the last units\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1/0\n", "mine.py: does not run: ZeroDivisionError"),
        ("def (\n", "mine.py: does not run: SyntaxError"),
        (METHOD.format(name="snp"), "mine.py: does not run: ValueError: two methods are named 'snp'"),
        (None, "mine.py: No such file"),
    ],
)
def test_a_file_that_brings_no_method_is_one_line(file: Path, text: str | None, problem: str) -> None:
    file.unlink() if text is None else file.write_text(text, encoding="utf-8")
    plugins.use([file])
    with pytest.raises(InputError, match=problem):
        methods()


def test_an_installed_package_brings_methods_by_an_entry_point(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "theirs-1.2.dist-info").mkdir(parents=True)
    (site / "their_method.py").write_text(METHOD.format(name="theirs"), encoding="utf-8")
    (site / "theirs-1.2.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1.2\n", encoding="utf-8")
    (site / "theirs-1.2.dist-info" / "entry_points.txt").write_text("[snp.methods]\ntheirs = their_method\n", "utf-8")
    monkeypatch.syspath_prepend(str(site))
    assert get("theirs").source == "a test"
    assert plugins.load()["their_method"] == "1.2"


def test_the_beginning_of_a_method_works_as_it_stands(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new-method", "largest-units", "--folder", str(tmp_path)])
    path = tmp_path / "largest_units.py"
    assert capsys.readouterr().out.startswith(f"{path}\n")
    main(["methods", "--plugin", str(path)])
    assert "largest-units" in capsys.readouterr().out
    small, _ = snp.compress(two_towers(), "largest-units", keep=0.7, towers=PATHS, power=1.0)
    alike, _ = snp.compress(two_towers(), "magnitude-structured", keep=0.7, towers=PATHS)
    assert [p.shape for p in small.parameters()] == [p.shape for p in alike.parameters()]
    text = path.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["new-method", "largest-units", "--folder", str(tmp_path)])
    assert "largest_units.py: is there already" in capsys.readouterr().err and path.read_text("utf-8") == text


@pytest.mark.parametrize("name", ["Mine", "9lives", "a_b", "a--b", "../x", ""])
def test_a_method_has_a_name_that_can_be_typed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["new-method", name, "--folder", str(tmp_path)])
    assert "cannot be the name of a method" in capsys.readouterr().err and not [*tmp_path.iterdir()]


def test_jobs_elsewhere_bring_the_methods_of_their_launch(file: Path, tmp_path: Path) -> None:
    place = Place.from_setup(Store(tmp_path / "runs"), Setup(plugin=(file,)))
    os.environ[plugins.ENVIRONMENT] = ""
    place.enter()
    assert get("last-units").summary == "keep the last units"


def test_a_broken_file_is_refused_before_any_work_is_done(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("1/0", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["run", "scenes/snp@60", "--scale", "smoke", "--plugin", str(file), "--out", str(tmp_path / "runs")])
    assert "mine.py: does not run: ZeroDivisionError" in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [("compare", "scenes/dense@100"), ("table",)])
def test_results_are_asked_for_by_the_name_of_such_a_method(
    command: tuple[str, ...], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command, "scenes/last-units@60", "--scale", "smoke", "--out", str(tmp_path)]
    for more, said in (([], "no such row"), (["--plugin", str(file)], "no result")):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert said in capsys.readouterr().err
