"""Several processes of one command on this machine, which find each other as those of torchrun do (team.py)."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Sequence


def launch(processes: int, command: Sequence[str]) -> int:
    """Run `command` as a team on this machine; ends all when one fails, and returns the first exit code that is not 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    shared = os.environ | shared | {"MASTER_PORT": str(port)}
    members = [
        subprocess.Popen(
            command, env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=None if rank == 0 else subprocess.DEVNULL
        )
        for rank in range(processes)
    ]
    try:
        while True:
            codes = [member.poll() for member in members]
            failed = [code for code in codes if code]
            if failed or None not in codes:
                return failed[0] if failed else 0
            time.sleep(0.1)
    finally:
        time.sleep(0.5 if any(member.poll() for member in members) else 0)  # for the message of the first
        for member in members:
            member.terminate()
            member.wait()
