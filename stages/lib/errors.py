"""The error a user can act on, and how a stage ends with it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: the message says what was found, where, and the way out."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a UserError becomes one message on stderr and exit code 1.

    Anything else keeps its traceback: that is a fault of this project, not of the user.
    """
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: no file is half-written; the same command starts this stage again", file=sys.stderr)
        sys.exit(130)


def first_line(error: BaseException, longest: int = 200) -> str:
    """The first line of an error of somebody else's, or its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:longest] if lines else type(error).__name__
