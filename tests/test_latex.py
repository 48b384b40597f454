"""Tables for papers: what a reader sees is right, and LaTeX takes it."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from snp.experiment.tables import TABLES, rows
from snp.report.frame import Measured
from snp.report.latex import latex
from snp.report.table import table
from snp.runs.store import Store

FRAME = pd.DataFrame(
    {
        "method": ["dense †", "magnitude_2-4"],
        "kind": ["dense", "unstructured"],
        "RefCOCO val": ["89.3 ±0.5", "87.0 ±0.5"],
        "Δ dense": ["", "-2.2 [-3.5, +0.8]"],
        "stored": ["100.0%", "60.0%"],
    }
)


def test_names_begin_at_the_left_and_numbers_end_at_the_right() -> None:
    assert r"\begin{tabular}{llrrr}" in latex(FRAME, "scenes")


def test_signs_are_what_a_reader_of_papers_knows() -> None:
    text = latex(FRAME, "scenes: 40% removed († of changed code)")
    assert text.isascii()
    assert r"\caption{scenes: 40\% removed (\textdagger{} of changed code)}" in text
    assert r"RefCOCO val & $\Delta$ dense & stored \\" in text
    assert r"dense \textdagger{} & dense & 89.3 $\pm$0.5 &  & 100.0\% \\" in text
    assert r"magnitude\_2-4 & unstructured & 87.0 $\pm$0.5 & $-$2.2 [$-$3.5, +0.8] & 60.0\% \\" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: apt install texlive-latex-recommended")
def test_every_table_compiles_and_none_is_wider_than_a_line(tmp_path: Path) -> None:
    marked = latex(FRAME, "scenes: 40% removed (†)")
    store = Store.at("desk")
    measured = [name for name in TABLES if not Measured(rows(name, "desk"), store).empty]
    texts = [marked, *(table(name, store, "desk", format="latex") for name in measured)]
    (tmp_path / "tables.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
        + "\n\\clearpage\n".join(texts)
        + "\\end{document}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert not re.search("^(Missing character|Overfull|LaTeX Warning: .*lost)", done.stdout, re.MULTILINE), done.stdout
    assert (tmp_path / "tables.pdf").read_bytes().startswith(b"%PDF")
