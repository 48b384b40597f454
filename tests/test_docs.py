"""README and docs: short where they should be, rendered from results, and every block of code in them runs."""

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from snp import cli
from snp.experiment.tables import HEADLINE, select
from snp.flags import App, registry
from snp.report.headline import headline
from snp.report.readme import pages, rendered
from snp.runs.store import Store

HERE = Path(__file__).parents[1]
PAGES = [HERE / "README.md", HERE / "CONTRIBUTING.md", *sorted((HERE / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(language: str, page: Path) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def lines(program: str) -> list[tuple[str, list[str]]]:
    """Every line of a shell block that starts `program`, and its arguments."""
    found = [line for page in PAGES for text in blocks("sh", page) for line in re.sub(r"\\\n", " ", text).splitlines()]
    words = [(line.split("  #")[0].strip(), shlex.split(line, comments=True)) for line in found]
    return [(line, split[1:]) for line, split in words if split and split[0] == program]


def test_the_readme_is_two_screens_long() -> None:
    assert len((HERE / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(HERE), ids=lambda page: page.name)
def test_a_page_shows_what_the_committed_results_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rendered(text, Store.at("desk"), page) == text, "run `snp readme`"


def test_every_table_of_the_project_is_on_the_page_of_results() -> None:
    text = (HERE / "docs" / "results.md").read_text(encoding="utf-8")
    for name in ("table1", "table1b", "table2", "table3", "table4", "figure1", "tickets", "claims"):
        assert re.search(rf"<!-- begin (?:\w+ )?{name}\b", text), name


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_as_it_stands(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for text in blocks("python", page):
        exec(compile(text, str(page), "exec"), names)
    if page.name == "README.md":
        assert "70% of the parameters remain" in capsys.readouterr().out
        assert names["small"].num_parameters() == pytest.approx(0.7 * names["model"].num_parameters(), rel=1e-3)


@pytest.fixture(scope="module")
def parser() -> App:
    """The commands of `snp`, each of which reads and checks its arguments, and does nothing."""
    reading = App()

    def mute(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def nothing(*values: Any, **named: Any) -> None:
            del values, named

        return nothing

    groups = [import_module(f"snp.cli.{group}") for group in cli.GROUPS]
    for name in cli.app._subcommands:
        [function] = [vars(group)[name] for group in groups if name in vars(group)]
        reading.command(mute(inspect.unwrap(function)))
    return reading


@pytest.mark.parametrize(("line", "arguments"), lines("snp"))
def test_a_command_of_a_page_has_the_arguments_that_it_is_given(parser: App, line: str, arguments: list[str]) -> None:
    parser.cli(prog="snp", args=arguments, registry=registry)


@pytest.fixture(scope="module")
def sessions() -> set[str]:
    """Names of the sessions of the noxfile."""
    command = [sys.executable, "-m", "nox", "--list"]
    listed = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    return set(re.findall(r"^[*-] ([\w-]+)", listed.stdout, re.MULTILINE))


@pytest.mark.parametrize(("line", "arguments"), lines("nox"))
def test_a_session_of_a_page_exists(sessions: set[str], line: str, arguments: list[str]) -> None:
    named = arguments[1 : arguments.index("--")] if "--" in arguments else arguments[1:]
    assert arguments[0] == "-s" and named and {*named} <= sessions


@pytest.mark.parametrize(("line", "arguments"), lines("sbatch"))
def test_a_script_of_a_page_exists(line: str, arguments: list[str]) -> None:
    assert (HERE / arguments[-1]).is_file()


def test_the_headline_is_short_and_says_what_a_method_does_not_reach() -> None:
    text = headline("table1", Store.at("desk"), "desk", "scenes")
    methods = [line.split("|")[1].strip(" *") for line in text.splitlines() if line.startswith("|")][2:]
    assert methods == [*HEADLINE]
    assert {row.name for row in select("table1", "desk", "scenes")} >= {*HEADLINE}
    assert "cross-modal cannot remove 60%: 59.5% remain." in text


@pytest.mark.slow
def test_the_site_builds_without_a_dead_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("mkdocs.commands.build")
    from mkdocs.config import load_config

    monkeypatch.chdir(HERE)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build.build(load_config(str(HERE / "mkdocs.yml"), site_dir=str(tmp_path / "site")))
    page = (tmp_path / "site" / "method.html").read_text(encoding="utf-8")
    assert "<math" in page and "arithmatex" not in page
    for path in (tmp_path / "site").glob("*.html"):  # nothing is fetched from elsewhere
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?://", text), path.name
