"""`python -m snp` is the command `snp`."""

from snp.cli import main

main()
