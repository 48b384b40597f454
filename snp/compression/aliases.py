"""Names of rows in the tables that are a method with options; known to `snp.compress` too, and free of torch."""

import json
from collections.abc import Mapping

Given = dict[str, bool | int | float | str]

ALIASES: dict[str, tuple[str, Given]] = {
    "magnitude": ("omp", {}),
    "magnitude-structured-uniform": ("magnitude-structured", {"scope": "uniform"}),
    "magnitude-structured-global": ("magnitude-structured", {"scope": "global"}),
    "magnitude-structured-uniform-basis": ("magnitude-structured", {"scope": "uniform", "basis": "spectral"}),
    "taylor-basis": ("taylor", {"basis": "spectral"}),
    "upop-basis": ("upop", {"basis": "spectral"}),
    "snp-prune-only": ("snp", {"cross": False, "blockwise": False}),
    "snp-cross-only": ("snp", {"prune": False, "blockwise": False}),
    "snp-blockwise-only": ("snp", {"prune": False, "cross": False}),
    "snp-free-logits": ("snp", {"hypernetwork": False}),
    "snp-prune-at-once": ("snp", {"cross": False, "blockwise": False, "freeze": 0, "apply_at": 0}),
    "snp-no-basis": ("snp", {"basis": "none"}),
    "snp-magnitude-score": ("snp", {"score": "magnitude"}),
    "snp-uniform": ("snp", {"scope": "uniform"}),
    "snp-at-once": ("snp", {"freeze": 0, "apply_at": 0}),
    "snp-late": ("snp", {"every": 8, "freeze": 0.4, "apply_at": 0.5}),
    "snp-plain": (
        "snp",
        {"basis": "none", "score": "magnitude", "scope": "uniform", "every": 8, "freeze": 0.4, "apply_at": 0.5},
    ),
    "gradual-attribution": ("gradual", {"attribution": True}),
    "task-ticket": ("lottery", {}),
    "universal-ticket": ("lottery", {}),
    "random-ticket": ("lottery", {"ticket": "random"}),
}
"""Name -> (method, its options)."""

TICKETS = {
    "task-ticket": "the ticket is found on the task that it is fine-tuned on",
    "universal-ticket": "the ticket is found on pre-training",
    "random-ticket": "the weights that stay are drawn by chance",
}
"""What the tables' tickets are, where the options alone do not say it."""


def named(name: str, options: Mapping[str, bool | int | float | str]) -> str:
    """A name with options behind it, as labels have them."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in sorted(options.items())}
    return ",".join([name, *(f"{key}={text}" for key, text in texts.items())])
