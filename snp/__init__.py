"""SNP: compressing vision-language models by jointly sharing and pruning weights."""

__version__ = "0.1.0"
