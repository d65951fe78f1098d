"""Kill `dvc repro` at random moments, again and again until it ends: is dvc.lock that of a quiet run, and every output?

    python -m tests.bench.dvc_kills --kills 20                       # of each kind
    python -m tests.bench.dvc_kills --kills 5 --how stage ctrl-c

    group   SIGKILL of everything, as at a power cut
    stage   SIGKILL of the stage alone, as by the kernel when memory is short
    ctrl-c  SIGINT to everything, as from the keyboard

A clone of this repository's last commit has the outputs of another seed; its pictures are the first of the sample. A moment is a
line of what train and the stages after it say, and up to a second more. After each kill every output must be whole: the
earlier run's bytes or those of a quiet run. `dvc repro` is then typed again. What a user must do besides is counted: DVC's
own message about .dvc/tmp/rwlock is followed, a damaged dvc.lock taken from git.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import yaml

from tests.bench.clones import Clone, hashes

MOST = 4  # kills of one series; the run after them is left alone
SETTINGS = {"epochs": 8, "train.patience": 8, "train.workers": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--how", nargs="+", choices=("group", "stage", "ctrl-c"), default=["group", "stage", "ctrl-c"])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(0 if bench(args, Path(scratch)) else 1)


def bench(args: argparse.Namespace, scratch: Path) -> bool:
    before = Clone(scratch / "before", args.images, own=False)
    before.set(SETTINGS | {"seed": 1})
    before.run("dvc", "repro")
    before.set({"seed": 0})
    before.run("dvc", "repro", "stats")
    before.run("git", "add", "-A")
    before.commit()
    quiet = copied(before, scratch / "quiet")
    assert repro(quiet, scratch / "said") == 0
    lines = (scratch / "said").read_text().splitlines()
    first = next(number for number, line in enumerate(lines, start=1) if "Running stage 'train'" in line)
    print(f"a quiet run says {len(lines)} lines, train from line {first} on", flush=True)
    old, new = outputs(before), outputs(quiet)
    assert old != new
    sound = True
    for how in args.how:
        chance, count = random.Random(f"{args.seed}:{how}"), Counter[str]()
        while count["kills"] < args.kills:
            one = copied(before, scratch / "killed")
            series(one, how, partial(drawn, chance, first, len(lines)), (old, new), count)
            same = hashes((one.folder / "dvc.lock").read_text()) == hashes((quiet.folder / "dvc.lock").read_text())
            same = same and outputs(one) == new
            left = [path.name for path in (one.folder / "models").iterdir() if "checkpoint" in path.name]
            count.update({"series": 1, "identical": same, "left": len(left)})
            if not same or left:
                print(f"  series {count['series']}: identical {same}, left over {left}")
            shutil.rmtree(one.folder)
        print(told(how, count), flush=True)
        sound = sound and count["identical"] == count["series"] and not count["half"] + count["lost"] + count["left"]
    return sound


def drawn(chance: random.Random, first: int, last: int) -> tuple[int, float]:
    return chance.randint(first, last), chance.uniform(0, 1)


def told(how: str, count: Counter) -> str:
    running = ", ".join(f"{count[key]} in {key[3:]}" for key in sorted(count) if key.startswith("in "))
    return (
        f"{how}: {count['kills']} kills ({running}) in {count['series']} series; {count['identical']} series ended with the "
        f"same dvc.lock and the same bytes;\n  half files {count['half']}, lost {count['lost']}, left over {count['left']}; "
        f"runs that carried on with a checkpoint {count['carried on']};\n  to be done by hand: .dvc/tmp/rwlock removed "
        f"{count['rwlock']}, dvc.lock taken from git {count['lock']}, the command once more {count['again']}"
    )


def copied(clone: Clone, folder: Path) -> Clone:
    shutil.copytree(clone.folder, folder, symlinks=True)
    made = Clone.__new__(Clone)
    made.folder = folder
    return made


def outputs(clone: Clone) -> dict[str, bytes]:
    names = hashes((clone.folder / "dvc.lock").read_text())
    return {name: (clone.folder / name).read_bytes() for name in names if (clone.folder / name).is_file()}


def series(one: Clone, how: str, moment: Callable[[], tuple[int, float]], known: tuple[dict, dict], count: Counter) -> None:
    """`dvc repro` in `one` with kills until it ends by itself."""
    said = one.folder.with_name("said")
    for kill in range(MOST + 1):
        for _ in range(3):
            code = repro(one, said, moment() if kill < MOST else None, how)
            text = said.read_text()
            count["carried on"] += "carrying on behind" in text
            if code == 0:
                return
            if not helped(one, text, count):
                break
        stage = re.findall(r"Running stage '(\w+)'", text)
        count["kills"] += 1
        count[f"in {stage[-1] if stage else 'DVC before them'}"] += 1
        if "Traceback" in text:
            print(f"  a traceback: {text[-500:]}", flush=True)
        for name in {**known[0], **known[1]}:
            path = one.folder / name
            count["lost"] += not path.is_file()
            count["half"] += path.is_file() and path.read_bytes() not in [content.get(name) for content in known]
    raise SystemExit(f"dvc repro does not end by itself after {MOST} kills:\n{text}")


def repro(one: Clone, said: Path, moment: tuple[int, float] | None = None, how: str = "") -> int:
    """Run `dvc repro`; strike at line and seconds of `moment`, if it has not ended by then. The exit code."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    with open(said, "w") as told:
        run = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=one.folder, env=environment, stdout=told, stderr=told)
        while moment and run.poll() is None:
            if len(said.read_text().splitlines()) >= moment[0]:
                time.sleep(moment[1])
                strike(run.pid, how)
                break
            time.sleep(0.02)
        return run.wait()


def strike(dvc: int, how: str) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(dvc)
        if how == "group":
            root.suspend()  # so that nobody is born meanwhile
        processes = [*([] if how == "stage" else [root]), *root.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)


def helped(one: Clone, text: str, count: Counter) -> bool:
    """Whether `dvc repro` could not begin, for what an earlier kill has left; does what a user would do then."""
    if "rwlock" in text.lower() and "Auto removed" not in text and "ERROR" in text:
        (one.folder / ".dvc/tmp/rwlock").unlink()
        count["rwlock"] += 1
        return True
    try:
        yaml.safe_load((one.folder / "dvc.lock").read_text())["stages"]
    except (yaml.YAMLError, TypeError, KeyError, FileNotFoundError):
        one.run("git", "checkout", "dvc.lock")
        count["lock"] += 1
        return True
    if "Unable to acquire lock" in text or "another process is training" in text:
        count["again"] += 1
        time.sleep(5)
        return True
    return False


if __name__ == "__main__":
    main()
