"""Tables for papers: LaTeX that compiles with booktabs and graphicx."""

import re

import pandas as pd

SYMBOLS = str.maketrans({"Δ": r"$\Delta$", "±": r"$\pm$", "†": r"\textdagger{}"})
"""What pdfTeX has no letter for, or only in some fonts."""
LEFT = ("method", "kind")
"""Columns of names; all others hold numbers, and end at the right."""
FRAME = r"""\begin{table}  %% \usepackage{booktabs,graphicx}
\centering
\caption{%s}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%%
%s}
\end{table}
"""


def latex(frame: pd.DataFrame, title: str) -> str:
    """A frame of texts as a LaTeX table, made smaller where it is wider than a line."""
    style = frame.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis="index")
    columns = "".join("l" if name in LEFT else "r" for name in frame)
    lines = style.to_latex(hrules=True, column_format=columns).strip()
    signed = re.sub(r"(?<=[ \[])-(?=\d)", "$-$", lines)
    return FRAME % (title.replace("%", r"\%").replace("_", r"\_").translate(SYMBOLS), signed.translate(SYMBOLS))
