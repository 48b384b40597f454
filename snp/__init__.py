"""SNP: compressing vision-language models by jointly sharing and pruning weights."""

from importlib import import_module

__version__ = "0.1.0"


_HOMES = {
    "compress": "snp.compression.compress",
    "Recover": "snp.compression.recover",
    "find": "snp.compression.finding",
    "save": "snp.compression.folder",
    "load": "snp.compression.folder",
    "Model": "snp.compression.folder",
    "materialize": "snp.compression.materialize",
}


def __getattr__(name: str) -> object:
    """`snp.compress` and what goes with it, loaded when they are asked for: tables are rendered without torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'snp' has no attribute {name!r}")
