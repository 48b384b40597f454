"""`python -m snp` and the console script: the command `snp`, which Ctrl-C ends in one line also while it is loaded."""

import signal

from snp.training.stopping import ending


def main() -> None:
    """Run the command."""
    try:
        with ending():
            from snp.cli import main as command

            command()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is on its way out


if __name__ == "__main__":
    main()
