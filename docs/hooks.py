"""What the site takes from outside of docs/ (figures, the page on clusters), and formulas that no script must draw."""

import re
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

HERE = Path(__file__).parents[1]
ELSEWHERE = {"clusters.md": "slurm/README.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add what stands elsewhere, under the names that pages of the site use."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(HERE / source).read_text(encoding="utf-8")))
    for path in sorted((HERE / "results" / "figures").glob("*.png")):
        files.append(File.generated(config, f"results/figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that are right in the repository, made right in the site."""
    for there, here in (("../results/", "results/"), ("../docs/", ""), ("../slurm/README.md", "clusters.md")):
        markdown = markdown.replace(f"]({there}", f"]({here}")
    return markdown


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw by themselves."""

    def drawn(match: re.Match[str]) -> str:
        return convert(unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return re.sub(r'<(span|div) class="arithmatex">\\[([](.*?)\\[)\]]</\1>', drawn, html, flags=re.DOTALL)
