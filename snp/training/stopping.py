"""Stopping a run from outside: SIGUSR1, SIGTERM and SIGINT let it save where it is, and end with `Stopped`.

SLURM sends the first ahead of a time limit, the second before it preempts or cancels; the third is a terminal's Ctrl-C.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
AGAIN = 75
"""Exit code (EX_TEMPFAIL of sysexits.h) of a command that was stopped and wants to be started again."""

_SOON = 0.05
"""Seconds until a signal is looked at again that came while a module was imported or a worker started."""

_held = 0
_asked: int | None = None


class Stopped(BaseException):
    """A run was stopped by a signal, and goes on from where it is when it is started again.

    No Exception: nothing that mends errors may take it for one.

    Args:
        signum: SIGUSR1 (it wants to be started again), SIGTERM or SIGINT (whoever sent it decides).
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """What the command ends with: `AGAIN`, or 128 + the signal as a shell has it."""
        return AGAIN if self.signum == signal.SIGUSR1 else 128 + self.signum


@contextmanager
def catching() -> Iterator[None]:
    """Within, the signals raise `Stopped`: at once, but within `held` only when it is left.

    Handlers that were there before are put back at the end. Outside the main thread, which alone can have handlers,
    nothing changes.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _handle) for signum in SIGNALS if not _background(signum)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _asked = None


def _background(signum: int) -> bool:
    """Whether it is the Ctrl-C of a terminal in whose background this process runs: its shell has it ignored."""
    return signum == signal.SIGINT and signal.getsignal(signum) == signal.SIG_IGN


@contextmanager
def ending() -> Iterator[None]:
    """Around all that a command does: where a signal stops it, it ends with one line and the exit code."""
    with catching():
        try:
            yield
        except (Exception, SystemExit):
            if not asked():
                raise
            _end(Stopped(_signal()))  # a library made another error of it, or it is not answered yet
        except Stopped as stopped:
            _end(stopped)


def _end(stopped: Stopped) -> NoReturn:
    print("snp: stopped; the same command goes on from what is saved", file=sys.stderr)
    sys.exit(stopped.exit_code)


@contextmanager
def held() -> Iterator[None]:
    """Within, work is not interrupted: it looks at `asked` where it can be saved, and then calls `stop`."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if asked():
        stop()


def asked() -> bool:
    """Whether a signal came that was not answered yet."""
    return _asked is not None


def answer() -> None:
    """The signal that came is answered, by another end than that of `ending`."""
    global _asked
    _asked = None


def stop() -> None:
    """Raise `Stopped`. Without a signal in this process another one had it: then it was SIGUSR1 or is taken for it."""
    raise Stopped(_signal())


def _signal() -> int:
    return signal.SIGUSR1 if _asked is None else _asked


def _handle(signum: int, frame: FrameType | None) -> None:
    global _asked
    _asked = signum if _asked is None else _asked
    if _held:
        return
    if _delicate(frame):
        threading.Timer(_SOON, _ask_again, (signum,)).start()
    else:
        stop()


def _delicate(frame: FrameType | None) -> bool:
    """Whether a module is being imported, where what is raised may vanish or abort the process, or a process started.

    One that is started by half would end with an error of its own: nobody tells it what it is for.
    """
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_qualname == "BaseProcess.start":
            return True
        frame = frame.f_back
    return False


def _ask_again(signum: int) -> None:
    if asked():
        os.kill(os.getpid(), signum)
