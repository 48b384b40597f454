"""How people start things: one shared environment from requirements.lock, and a session for each job."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"  # all sessions share one environment: it is 6 GB
nox.options.sessions = ["lint", "tests"]

HERE = Path(__file__).parent
SHARED = HERE / ".nox" / "shared"
MEMORY = Path("/dev/shm")
BIN = SHARED / ("Scripts" if sys.platform == "win32" else "bin")


def python(session: nox.Session, *arguments: str) -> None:
    """Run the shared environment's Python."""
    install(session)
    session.run(str(BIN / "python"), *arguments, external=True)


def install(session: nox.Session) -> None:
    """Make the shared environment with pip, unless it is the one that requirements.lock describes."""
    content = (HERE / "requirements.lock").read_bytes() + (HERE / "pyproject.toml").read_bytes()
    wanted = hashlib.sha256(content + sys.version.encode()).hexdigest()
    stamp = SHARED / "installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    session.log(f"installing the locked environment into {SHARED}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(SHARED)], check=True)
    pip = [str(BIN / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    session.run(*pip, "--require-hashes", "-r", "requirements.lock", external=True)
    session.run(*pip, "--no-deps", "--no-build-isolation", "-e", ".", external=True)
    stamp.write_text(wanted, encoding="utf-8")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, spread over processes unless files are named; arguments after -- go to pytest."""
    named = any(Path(argument.split("::")[0]).exists() for argument in session.posargs)
    spread = [] if named else ["-n", str(processes()), "--dist", "worksteal"]
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
        session.env["TMPDIR"] = str(MEMORY)  # a disk is slow to flush thousands of small results
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # what many processes import is compiled once
    python(session, "-m", "pytest", *spread, *session.posargs)


def processes() -> int:
    """One for each core that has 4 GiB of memory: the models of paper scale need 8 while the others need 2."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // 2**32))


@nox.session
def notebook(session: nox.Session) -> None:
    """Open the notebooks in a browser; arguments after -- go to JupyterLab, as --no-browser or --allow-root."""
    python(session, "-m", "jupyterlab", *session.posargs, "notebooks/ablations.ipynb")


@nox.session(name="run-notebooks")
def run_notebooks(session: nox.Session) -> None:
    """Run the notebooks on the committed results, and keep in them what they show."""
    python(session, "tests/run_notebooks.py")


@nox.session
def audit(session: nox.Session) -> None:
    """Some of the results run afresh, and whether they come out the same; -- --sample 20."""
    python(session, "-m", "snp", "audit", *session.posargs)


@nox.session(name="paper-trial")
def paper_trial(session: nox.Session) -> None:
    """Two steps of every phase at paper scale on a CPU, for both models, with small pictures and with full ones."""
    session.env["SNP_LONG_TESTS"] = "1"
    python(session, "-m", "pytest", "-s", "tests/test_paper.py", *session.posargs)


@nox.session
def models(session: nox.Session) -> None:
    """Five public models of their full sizes, untrained: compressed, recovered, saved, loaded, exported, timed."""
    python(session, "examples/public_models.py", "--full", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The site of docs/ in .site; dead links and undocumented names fail. -- serve shows it while it is written."""
    session.env["NO_MKDOCS_2_WARNING"] = "1"  # on what becomes of MkDocs: nothing that a build needs to say
    python(session, "-m", "mkdocs", *(session.posargs or ("build", "--quiet")))


@nox.session
def lint(session: nox.Session) -> None:
    """ruff over everything, its format too; mypy over all of the package."""
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")
    python(session, "-m", "mypy", "snp", "baselines")


@nox.session(name="slurm-tests")
def slurm_tests(session: nox.Session) -> None:
    """Launching on a SLURM of its own, in a temporary folder; needs the Debian packages that it names."""
    sys.path.insert(0, str(HERE / "tests" / "slurm"))
    from cluster import missing

    if packages := missing():
        session.error(f"SLURM is not here; Debian packages: apt install {' '.join(packages)}")
    python(session, "-m", "pytest", "tests/slurm", *session.posargs)


REPRODUCED = {
    "table1": "Table 1, referring expressions",
    "table1b": "Table 1b, unstructured pruning at 63% sparsity",
    "table2": "Table 2, visual question answering",
    "table3": "Table 3, phrase grounding",
    "table4": "Table 4, object detection with the GLIP-style model",
    "table5": "Table 5, trimming of each input",
    "table6": "Table 6, a few expressions of another look",
    "table7": "Table 7, expressions without a target",
    "ablations": "What each part of SNP gives",
    "longer": "Four times the steps",
}


def reproduce(table: str, what: str) -> None:
    """Make the session that runs the main rows of a table."""

    def run(session: nox.Session) -> None:
        python(session, "-m", "snp", "reproduce", table, *session.posargs)

    run.__doc__ = f"{what}, from the dense checkpoint, beside the committed one; -- --scale smoke, -- --from-results."
    nox.session(run, name=f"reproduce-{table}")


for name, title in REPRODUCED.items():
    reproduce(name, title)


@nox.session(name="pretrain-desk")
def pretrain_desk(session: nox.Session) -> None:
    """The dense desk checkpoint; -- --data stamps, -- --model glip, -- --out FOLDER: beside the committed one."""
    python(session, "-m", "snp", "pretrain", "--scale", "desk", *session.posargs)
