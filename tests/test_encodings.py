"""Languages and terminals: what is printed on any output, and files that are UTF-8 in every locale."""

import ast
import codecs
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from snp.cli import main
from snp.errors import InputError
from snp.files import read_text
from snp.terminal import SIGNS, plain, progress

HERE = Path(__file__).parents[1]
COMMANDS = {
    ("table", "table1", "--data", "scenes"): 0,
    ("table", "table4", "--format", "latex"): 0,
    ("claims", "table1"): 0,
    ("rows", "table1"): 0,
    ("status", "table2"): 0,
    ("methods",): 0,
    ("params",): 0,
    ("run", "--help"): 0,
    ("data", "check", "refcoco", "--data-root", "."): 2,
    ("table", "Täbelle ≥ 1"): 2,
    ("table", "--frmt"): 2,
}


def printed(encoding: str, *arguments: str, errors: str = "strict") -> tuple[int, str]:
    """Exit code of a command, and all that it prints where both outputs have this encoding."""
    pages, code = [io.BytesIO(), io.BytesIO()], 0
    out, err = io.TextIOWrapper(pages[0], encoding, errors), io.TextIOWrapper(pages[1], encoding, "backslashreplace")
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as exit:
            code = int(exit.code or 0)
    out.flush()
    err.flush()
    return code, "".join(page.getvalue().decode(encoding) for page in pages)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_prints_on_an_output_that_lacks_its_signs(command: tuple[str, ...], encoding: str) -> None:
    code, text = printed(encoding, *command)
    assert code == COMMANDS[command] and len(text) > 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", " Δ dense "), ("latin-1", " delta dense "), ("cp1252", " delta dense "), ("ascii", " delta dense ")],
)
def test_signs_stay_where_they_can_and_are_readable_where_they_cannot(encoding: str, expected: str) -> None:
    _, text = printed(encoding, "table", "table1", "--data", "scenes")
    assert expected in text
    assert ("± standard" in text) == (encoding != "ascii") and ("+- standard" in text) == (encoding == "ascii")


def test_whoever_says_how_to_print_is_obeyed() -> None:
    assert "&#916; dense" in printed("ascii", "table", "table1", "--data", "scenes", errors="xmlcharrefreplace")[1]


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("Δ ≥ 5 · µ → …", "ascii", b"delta >= 5 | u -> ..."),
        ("Übung café", "ascii", b"Ubung cafe"),
        ("Übung ≥", "latin-1", b"\xdcbung >="),
        ("文 🙂", "cp1252", b"? ?"),
        ("file \udcff.png", "utf-8", b"file \xff.png"),
    ],
)
def test_what_an_encoding_lacks_becomes_plain(text: str, encoding: str, expected: bytes) -> None:
    codecs.register_error("plain-in-tests", plain)
    assert text.encode(encoding, "plain-in-tests") == expected
    assert all(sign.isascii() for sign in SIGNS.values())


@pytest.mark.slow
def test_files_are_read_and_written_in_utf_8_in_a_locale_that_is_not(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Übung\n<!-- begin brief table1b scenes -->\n<!-- end -->\n", encoding="utf-8")
    plain_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(HERE)}
    for command in (
        ["readme", str(readme)],
        ["readme", str(readme), "--check"],
        ["figure", "figure1", "--png", str(tmp_path / "Bild ≥ 1.png")],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "snp", *command], capture_output=True, env=os.environ | plain_locale, check=False
        )
        assert done.returncode == 0, done.stderr
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("# Übung\n") and "| Δ dense " in text
    assert (tmp_path / "Bild ≥ 1.png").exists()


def test_a_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes("Übung".encode("latin-1"))
    with pytest.raises(InputError, match=r"README.md: is not UTF-8: .* \(write it in UTF-8\)"):
        read_text(path)
    for other, problem in ((tmp_path, "cannot be read: Is a directory"), (tmp_path / "none.md", "file not found")):
        assert printed("utf-8", "readme", str(other)) == (2, f"snp: {other}: {problem}\n")


@pytest.mark.slow
def test_no_text_is_read_or_written_in_the_encoding_of_a_locale() -> None:
    """Every call that opens a text, here or of another program, names the encoding."""
    guessed = []
    for path in [*(HERE / "snp").rglob("*.py"), *(HERE / "baselines").rglob("*.py"), HERE / "noxfile.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node) and "encoding" not in _named(node):
                guessed.append(f"{path.relative_to(HERE)}: {node.lineno}")
    assert not guessed


def _opens_text(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name) and call.func.id == "open":
        modes = [argument.value for argument in call.args[1:2] if isinstance(argument, ast.Constant)]
        return "b" not in (*modes, "r")[0]
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    starts = method in ("run", "Popen", "check_output")  # of subprocess
    as_text = not _named(call).isdisjoint(("text", "universal_newlines"))
    return method in ("read_text", "write_text") or (starts and as_text)


def _named(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


class Screen(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_in_a_terminal_and_a_line_now_and_then_in_a_log() -> None:
    log, screen = io.StringIO(), Screen()
    for file in (log, screen):
        with progress(total=50, desc="work", file=file, mininterval=0) as bar:
            for _ in range(50):
                bar.update()
                bar.set_description("more work")
    lines = [line for line in log.getvalue().splitlines() if line]
    assert 1 <= len(lines) <= 3 and "\r" not in log.getvalue()
    assert lines[-1].startswith("more work: 100%") and "50/50" in lines[-1]
    assert screen.getvalue().count("\r") > 3
