"""The error a user can act on, and how a stage ends with it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable

SPACE = "free some space (in a DVC project 'dvc gc --workspace' drops what only old experiments use)"
LESS = "lower train.batch_size (predict.batch_size), train.resolution"
# What a user can do about an error of the operating system.
WAYS_OUT = {
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EACCES: "make it readable, and its folder writable, for the user who runs this (ls -l shows whose it is)",
    errno.EPERM: "make it readable, and its folder writable, for the user who runs this (ls -l shows whose it is)",
    errno.EROFS: "the file system is mounted read-only: mount it for writing, or work in another folder",
    errno.EIO: "the disk or network drive reports a fault: check it before anything else",
    errno.EMFILE: "raise the number of open files (ulimit -n), or lower the number of workers",
    errno.EFBIG: "the file would be larger than the file system or 'ulimit -f' allows",
}


class UserError(Exception):
    """Something the user can mend: the message says what was found, where, and the way out."""


def quiet_until_main() -> None:
    """Let Ctrl-C end a stage without a traceback while its libraries are imported, where nothing can be lost yet.

    Only for a module that is being started with `python -m`, and where nobody has said otherwise.
    """
    if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; an error that the user can mend becomes one message on stderr and exit code 1.

    Anything else keeps its traceback: that is a fault of this project, not of the user.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(
            "interrupted: no file is half-written; the same command carries on, or starts this stage again",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:  # who reads what is printed has gone, as `head` does: nothing went wrong here
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it closes stdout
        sys.exit(1)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        print(f"error: {printable(message)}", file=sys.stderr)
        sys.exit(1)


def _message(error: Exception) -> str | None:
    """What to tell the user; None for what no user can mend."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in WAYS_OUT:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; {WAYS_OUT[error.errno]}. The outputs of the last good run are untouched"
    # By name and text: PyTorch, which these come from, is not imported where a stage does without it.
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "the GPU is out of memory: lower train.batch_size (predict.batch_size) or train.resolution, or set train.device: cpu"
        )
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"out of memory: {LESS} or the number of workers"
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        return f"a process that prepares batches has ended, most likely for lack of memory: {LESS} or train.workers"
    return None


def printable(text: str) -> str:
    """`text` with every control character but the line end escaped: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of an error of somebody else's, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:longest] if lines else type(error).__name__
