"""What differs from the sources at paper scale, and what does not, as tables."""

from typing import Any

from tabulate import tabulate

from snp.experiment.deviations import settings


def markdown() -> str:
    """Differences with their reasons; then all that is as it was published."""
    found = settings()
    apart = [[s.run, s.what, _text(s.published), s.source, _text(s.ours), s.reason] for s in found if s.differs]
    alike = [[s.run, s.what, _text(s.ours), s.source] for s in found if not s.differs]
    head = ["run", "what", "published", "source", "here", "why"]
    return (
        "\n\n".join(
            (
                tabulate(apart, head, tablefmt="pipe", disable_numparse=True),
                "As published:",
                tabulate(alike, ["run", "what", "value", "source"], tablefmt="pipe", disable_numparse=True),
            )
        )
        + "\n"
    )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
