"""What is installed: a wheel that works by itself and leaves a checkout as it was, and a lock that is whole."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from snp.runs.manifest import git_state

HERE = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "snp", "baselines", "results/published")
COMPRESS = """
import snp
from towers import PATHS, example, two_towers
from snp.compression.checkpoint import load

assert snp.__file__.startswith({folder!r}), snp.__file__
small, plan = snp.compress(two_towers(), "magnitude-structured", keep=0.7, towers=PATHS)
assert small(*example()).shape == (3, 5)
print(sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in two_towers().parameters()))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of a copy of this checkout was installed, without network and other packages."""
    checkout, folder = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("installed")
    for name in SOURCES:
        if (HERE / name).is_dir():
            shutil.copytree(HERE / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(HERE / name, checkout / name)
    before = sorted(checkout.rglob("*"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", folder, "."], cwd=checkout, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert sorted(checkout.rglob("*")) == before, "the build left something in the checkout"
    return folder


def run(installed: Path, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in another folder, with what was installed and not with this checkout."""
    left = {name: value for name, value in os.environ.items() if name != "SNP_DATA"}
    environment = left | {"PYTHONPATH": os.pathsep.join([str(installed), str(HERE / "tests")])}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False
    )


@pytest.mark.slow
def test_every_module_and_all_published_figures_are_in_the_wheel(installed: Path) -> None:
    for package in ("snp", "baselines"):
        here = {path.relative_to(HERE) for path in (HERE / package).rglob("*.py")}
        assert {path.relative_to(installed) for path in (installed / package).rglob("*.py")} == here
    for path in (HERE / "results" / "published").iterdir():
        assert (installed / "snp" / "report" / "quoted" / path.name).read_bytes() == path.read_bytes()
    assert (installed / "snp" / "snp.mplstyle").read_bytes() == (HERE / "snp" / "snp.mplstyle").read_bytes()
    assert {path.name for path in installed.iterdir()} >= {"snp", "baselines", "bin"}
    assert not (installed / "results").exists() and not (installed / "tests").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "told"),
    [("methods", "magnitude-structured"), ("rows table1", "scenes/snp@60"), ("params", "towers"), ("--help", "rows")],
)
def test_what_needs_no_results_works(installed: Path, tmp_path: Path, command: str, told: str) -> None:
    done = run(installed, str(installed / "bin" / "snp"), *command.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert told in done.stdout and not any(tmp_path.iterdir())


@pytest.mark.slow
def test_what_needs_results_says_that_it_has_none_and_where_they_are(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- begin table1 scenes -->\n<!-- end -->\n", encoding="utf-8")
    none = "snp: results/desk: no such folder, as an installation brings no results (give a folder of runs with --out, "
    for command in (
        ["table", "table1"],
        ["claims", "table1"],
        ["figure", "figure1"],
        ["readme"],
        ["reproduce", "table1", "--from-results"],
    ):
        done = run(installed, "-m", "snp", *command, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{none}or work in a checkout)\n")
    done = run(installed, "-m", "snp", "figure", "scaling", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "`snp bench scaling`" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.slow
def test_with_a_folder_of_runs_it_renders_what_the_checkout_renders(installed: Path, tmp_path: Path) -> None:
    command = ("-m", "snp", "table", "table2", "--format", "markdown", "--out", str(HERE / "results" / "desk"))
    there = run(installed, *command, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    assert there.stdout == run(HERE, *command, cwd=tmp_path).stdout and "### Published figures" in there.stdout


@pytest.mark.slow
def test_it_works_where_one_is_and_not_in_the_folder_of_packages(installed: Path, tmp_path: Path) -> None:
    code = (
        "from snp.experiment.places import data_home; from snp.runs.store import Store; "
        "print(Store.at('desk').root, data_home())"
    )
    done = run(installed, "-c", code, cwd=tmp_path)
    assert done.stdout == "results/desk .data\n", done.stderr


def test_code_below_the_repository_of_somebody_else_is_not_of_their_commit(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@here"]
    for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "theirs"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") == {"commit": None, "dirty": None}
    theirs = git_state(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", str(theirs["commit"])) and theirs["dirty"] is False


@pytest.mark.slow
def test_a_model_is_compressed_with_what_was_installed(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "-c", COMPRESS.format(folder=str(installed)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(0.7, abs=0.01)


LOCK = (HERE / "requirements.lock").read_text(encoding="utf-8")
PINS = re.findall(r"^([a-z0-9._-]+)==(\S+)", LOCK, re.MULTILINE)


def test_all_that_the_project_asks_for_is_in_the_lock() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w.-]", one)[0].lower().replace("_", "-") for one in asked}
    assert names <= {name for name, _ in PINS} and "jupyterlab" in names


def test_every_pin_has_its_hashes_and_no_address_is_named() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK.split("\n", 2)[2])
    assert len(blocks) == len(PINS) > 150
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK and "--index" not in LOCK
