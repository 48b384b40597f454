"""Every flag of every command: what it may not be is one line that names it, exit code 2, and nothing is made."""

import subprocess
import sys
from pathlib import Path

import pytest

from snp.cli import main
from snp.training.setup import Setup

RUN = ("run", "scenes/snp@60", "--scale", "smoke")
LAUNCH = ("launch", "table1", "--scale", "smoke")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that is refused."""
    with pytest.raises(SystemExit) as exit:
        main(list(arguments))
    out, error = capsys.readouterr()
    assert exit.value.code == 2 and out == ""
    assert error.startswith("snp: ") and error.count("\n") == 1
    assert "pydantic" not in error and "dummy" not in error and "type=" not in error
    return error


@pytest.mark.parametrize(
    ("command", "flag", "value", "problem"),
    [
        (RUN, "--workers", "0", "must be more than 0, got 0"),
        (RUN, "--workers", "-2", "must be more than 0, got -2"),
        (RUN, "--seed", "-1", "must be 0 or more, got -1"),
        (RUN, "--seed", "4294967296", "must be less than 4294967296"),
        (RUN, "--keep", "nan", "must lie in (0, 1], got nan"),
        (RUN, "--keep", "inf", "must lie in (0, 1], got inf"),
        (RUN, "--keep", "half", "must be a number, got half"),
        (RUN, "--steps", "0", "must be more than 0, got 0"),
        (RUN, "--steps", "x", "must be a whole number, got x"),
        (RUN, "--steps", "", "must be a whole number, got ''"),
        (RUN, "--steps", "1.5", "must be a whole number, got 1.5"),
        (RUN, "--workers", "nan", "must be a whole number, got nan"),
        (RUN, "--seed", "x", "must be a whole number, got x"),
        (RUN, "--out", "", "is empty"),
        (RUN, "--data-root", "", "is empty"),
        (("data", "make", "scenes"), "--root", "", "is empty"),
        (RUN, "--steps", "-5", "must be more than 0, got -5"),
        (RUN, "--batch", "4", "goes with --steps"),
        (RUN, "--device", "foo", "must be cpu or cuda, got foo"),
        (RUN, "--device", "cuda:x", "must be cpu or cuda, got cuda:x"),
        (("pretrain", "--scale", "smoke"), "--threads", "0", "must be more than 0, got 0"),
        (("pretrain", "--scale", "smoke"), "--steps", "0", "must be more than 0, got 0"),
        (("reproduce", "table1"), "--seed", "-1", "must be 0 or more, got -1"),
        (("reproduce", "table1"), "--workers", "0", "must be more than 0, got 0"),
        (("data", "make", "scenes"), "--workers", "0", "must be more than 0, got 0"),
        (("predictions",), "--number", "-1", "must be 0 or more, got -1"),
        (LAUNCH, "--array-parallelism", "0", "must be more than 0, got 0"),
        (LAUNCH, "--seed", "", "must be a whole number, got ''"),
        (LAUNCH, "--seed", "0,,1", "must be a whole number, got ''"),
        (LAUNCH, "--seed", "4294967296", "must be less than 4294967296"),
        (
            LAUNCH,
            "--time",
            "abc",
            "is not written as it should be, got abc (limit, as sbatch has it: minutes, HH:MM:SS",
        ),
        (LAUNCH, "--mem", "8", "is not written as it should be, got 8 (memory on each node, as 16G)"),
        (LAUNCH, "--cpus", "0", "must be more than 0, got 0"),
        (LAUNCH, "--gpus", "-1", "must be 0 or more, got -1"),
        (LAUNCH, "--nodes", "0", "must be more than 0, got 0"),
        (LAUNCH, "--sbatch", "qos=", "is not written as it should be, got qos="),
        (LAUNCH, "--batch", "4", "goes with --steps"),
        (("status", "table1"), "--seed", "x", "must be a whole number, got x"),
        (("cancel", "table1"), "--steps", "0", "must be more than 0"),
    ],
)
def test_what_a_flag_may_not_be(
    command: tuple[str, ...],
    flag: str,
    value: str,
    problem: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SNP_DATA", str(tmp_path / "data"))
    line = refused(capsys, *command, flag, value)
    assert line.startswith(f"snp: {flag}: ") and problem in line
    assert not any(tmp_path.iterdir())


def test_what_they_may_be_is_taken_as_it_is_given(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main([*RUN, "--seed", "1", "--workers", "3", "--dry-run", "--steps", "2", "--batch", "4", "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("seed1") == 4
    for seeds in (["--seed", "1", "2"], ["--seeds", "1,2"], ["--seeds", "1", "2"], ["--seed", "1,2"]):
        main([*RUN, *seeds, "--dry-run", "--out", str(tmp_path)])
        out = capsys.readouterr().out
        assert "seed1" in out and "seed2" in out
    given = Setup(steps=2, batch=4, device="cuda:1")
    assert (given.trial.name, given.device) == ("trial-steps2-batch4", "cuda:1")
    assert Setup().trial is None


def test_groups_of_flags_are_explained_in_their_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["launch", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "One job's share of a cluster" in said and "memory on each node, as 16G" in said
    assert "model_construct" not in said and "trusted" not in said


@pytest.mark.slow
@pytest.mark.parametrize("command", [RUN, ("pretrain", "--scale", "smoke"), (*LAUNCH, "--cluster", "local")])
def test_a_device_that_is_not_here_is_said_before_any_work_is_done(command: tuple[str, ...], tmp_path: Path) -> None:
    arguments = [*command, "--device", "cuda", "--out", str(tmp_path / "runs")]
    given = {"PYTHONPATH": str(Path(__file__).parents[1]), "SNP_DATA": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "snp", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=given | {"PATH": "", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "snp: --device: cuda is not here: torch finds 0 GPUs (--device cpu)\n"
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_one_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in (LAUNCH, ("pretrain", "--scale", "smoke", "--steps", "1")):
        with pytest.raises(SystemExit) as exit:
            main([*command, "--out", str(tmp_path / "file"), *(("--cluster", "local") if command is LAUNCH else ())])
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert exit.value.code == 2 and last == f"snp: --out {tmp_path / 'file'}: is no folder (name one, or a new one)"
