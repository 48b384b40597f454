"""What commands say of themselves: plain English for every flag, and no word of the libraries that read them."""

import re

import pytest

from snp.cli import app, main

COMMANDS = [name.replace("_", "-") for name in app._subcommands]
FOREIGN = re.compile(
    r"\b(None|STR|INT|FLOAT|BOOL|pydantic|repeatable)\b|\((default: (|''|False|True)|fixed.*)\)|--no-dry-run"
)
"""What tyro writes of Python's values and types."""


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main([*command, "--help"])
    assert exit.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_english(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = help_of(capsys, command)
    assert not FOREIGN.findall(text)
    about = text.splitlines()[2]
    assert about[0].isupper() and about.endswith((".", ","))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_of_every_argument_what_it_is(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    boxes = [line.strip("│ ") for line in help_of(capsys, command).splitlines() if line.startswith("│")]
    arguments = [
        place for place, line in enumerate(boxes) if re.match(r"--[a-z]|\[?[A-Z][A-Z-]+( \.\.\.)?\]?( |$)", line)
    ]
    for place in arguments:
        name, *said = re.split(r"\s{2,}", boxes[place], maxsplit=1)
        words = said[0] if said else boxes[place + 1]
        assert not words.startswith(("(", "--")), f"{command}: nothing is said of {name}"


def test_the_first_page_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    assert not [name for name in COMMANDS if f"• {name} " not in text]
    assert not FOREIGN.findall(text)


def test_seeds_are_written_in_one_way_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("run", "launch", "status", "cancel", "reproduce", "curve"):
        text = help_of(capsys, command)
        assert "--seed " in text and "--seeds " in text
