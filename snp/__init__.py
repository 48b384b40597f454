"""SNP: compressing vision-language models by jointly sharing and pruning weights."""

from importlib import import_module

__version__ = "0.1.0"


LAZY = {"compress": "snp.compression.compress", "materialize": "snp.compression.materialize"}


def __getattr__(name: str) -> object:
    """`snp.compress` and `snp.materialize`, loaded when they are asked for: tables are rendered without torch."""
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'snp' has no attribute {name!r}")
