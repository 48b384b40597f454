"""SNP: compressing vision-language models by jointly sharing and pruning weights."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`snp.compress`, loaded when it is asked for: tables are rendered without torch."""
    if name == "compress":
        from snp.compression.compress import compress

        return compress
    raise AttributeError(f"module 'snp' has no attribute {name!r}")
