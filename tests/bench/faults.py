"""Kill the stages at random moments, and let every single write fail: is anything lost, half-written or different after it?

    python -m tests.bench.faults                                # all five stages, 40 kills each, then every write of each
    python -m tests.bench.faults --stages train --kills 200 --seed 1

A project of two dozen pictures has the outputs of an earlier run with another seed. A stage then runs under the new
settings, and

  kills   gets SIGKILL after a random time, again and again until it ends by itself
  writes  finds the disk full, the folder locked or the file system read-only at its first, second, ... write
  torn    gets SIGKILL in the middle of its first, second, ... write, those of checkpoints among them

After each fault every output must be whole: the earlier run's bytes or those of a run without faults. At the end all must be
of the latter, and nothing else may lie around. See tests/bench/predict_kills.py for a longer prediction on real pictures.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import yaml

from tests.project import SMALL, Project, project

STAGES = ("validate", "stats", "train", "evaluate", "predict")
SETTINGS = SMALL | {"folds": 3, "train.networks": 2, "epochs": 4, "freeze": "layer4", "train.ema": 0.9, "predict.batch_size": 2}
FAILURES = (errno.ENOSPC, errno.EACCES, errno.EROFS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--kills", type=int, default=40, help="of each stage")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sound = [bench(stage, args, Path(scratch)) for stage in args.stages]
    sys.exit(0 if all(sound) else 1)


def bench(stage: str, args: argparse.Namespace, scratch: Path) -> bool:
    before = start(stage, scratch)
    quiet = scratch / f"{stage}-quiet"
    shutil.copytree(before, quiet)
    began = time.monotonic()
    assert ended(forked(stage, quiet)) == 0
    seconds = time.monotonic() - began
    old, new = contents(before), contents(quiet)
    killed = kills(stage, before, scratch / f"{stage}-killed", args, seconds, old, new)
    failed = writes(stage, before, scratch / f"{stage}-failed", old, new)
    torn = writes(stage, before, scratch / f"{stage}-torn", old, new, torn=True)
    changed = sum(old.get(name) != content for name, content in new.items())
    print(
        f"{stage}: a quiet run takes {seconds:.1f} s and changes {changed} files\n"
        f"  kills:  {killed['kills']} in {killed['series']} series, {killed['identical']} of these ended with identical files; "
        f"half files {killed['half']}, files lost {killed['lost']}, left over {killed['left']}\n"
        f"  writes: {failed['tried']} failures, {failed['said']} with one message, {failed['identical']} recovered identically; "
        f"half files {failed['half']}, files lost {failed['lost']}, left over {failed['left']}\n"
        f"  torn:   {torn['tried']} kills in a write, {torn['identical']} recovered identically; "
        f"half files {torn['half']}, files lost {torn['lost']}, left over {torn['left']}",
        flush=True,
    )
    wrong = [key for count in (killed, failed, torn) for key in ("half", "lost", "left") if count[key]]
    whole = killed["identical"] == killed["series"] and failed["said"] == failed["identical"] == failed["tried"]
    whole = whole and torn["said"] == torn["identical"] == torn["tried"]
    return whole and not wrong


def start(stage: str, scratch: Path) -> Path:
    """A project in which every stage has run with another seed, and those before `stage` again with the new one."""
    made = scratch / "earlier"
    if not made.exists():
        earlier = project(made, SETTINGS | {"seed": 1})
        run_in_child(earlier, *STAGES[2:])
    folder = scratch / f"{stage}-before"
    shutil.copytree(made, folder)
    settings = yaml.safe_load((folder / "params.yaml").read_text())
    # Seeds don't matter to validate and predict; these do.
    settings["seed"], settings["validate"]["side"], settings["evaluate"]["threshold"] = 0, 72, "fixed"
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    run_in_child(Project(folder), *STAGES[: STAGES.index(stage)])
    return folder


def run_in_child(made: Project, *stages: str) -> None:
    for stage in stages:
        assert ended(forked(stage, made.folder)) == 0, stage


class Flush:
    """`os.fsync`, which every file passes before it gets its name; call number `failing`, counted from 0, raises error `why`.

    Or, where that is 0, it leaves half of the file and kills the process.
    """

    def __init__(self, failing: int = -1, why: int = 0) -> None:
        self.failing, self.why, self.calls, self.flush = failing, why, 0, os.fsync

    def __call__(self, descriptor: int) -> None:
        # Folders are flushed too, but that is a matter of when, and not of whether, a file is there.
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            self.calls += 1
            if self.calls - 1 == self.failing and self.why:
                raise OSError(self.why, os.strerror(self.why))
            if self.calls - 1 == self.failing:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
        self.flush(descriptor)


def forked(stage: str, folder: Path, flush: Flush | None = None, told: Path = Path(os.devnull)) -> int:
    """Start the stage in a child that has everything imported; its process number. What it has to say goes to `told`."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        flush = flush or Flush()
        more = ["--images", folder / "images", "--out", folder / "out.csv"] if stage == "predict" else []
        with mock.patch.object(os, "fsync", flush):
            result = Project(folder).run(stage, *more, expect=int(flush.failing >= 0))
        told.write_text(result.err if flush.failing >= 0 else str(flush.calls))
        code = 0
    except BaseException as error:
        told.write_text(repr(error))
    finally:
        os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(stage: str, before: Path, folder: Path, args: argparse.Namespace, seconds: float, old: dict, new: dict) -> Counter:
    chance, count = random.Random(f"{args.seed}:{stage}"), Counter[str]()
    while count["kills"] < args.kills:
        shutil.copytree(before, folder)
        while True:
            child = forked(stage, folder)
            time.sleep(chance.uniform(0, 1.1 * seconds))
            if os.waitpid(child, os.WNOHANG)[0] == 0:
                os.kill(child, signal.SIGKILL)
                if ended(child) != 0:
                    count["kills"] += 1
                    check(folder, old, new, count)
                    continue
            break
        finish(folder, new, count)
        count["series"] += 1
        shutil.rmtree(folder)
    return count


def writes(stage: str, before: Path, folder: Path, old: dict, new: dict, torn: bool = False) -> Counter:
    """Let every write of the stage fail, or end in the middle, and the stage run again."""
    count = Counter[str]()
    told = folder.with_name("told")
    shutil.copytree(before, folder)
    assert ended(forked(stage, folder, Flush(), told)) == 0
    shutil.rmtree(folder)
    for number in range(int(told.read_text())):
        shutil.copytree(before, folder)
        why = 0 if torn else FAILURES[number % len(FAILURES)]
        code = ended(forked(stage, folder, Flush(number, why), told))
        said = told.read_text()
        count["tried"] += 1
        last = said.splitlines()[-1]
        one = code == 0 and last.startswith("error: ") and "Traceback" not in said and os.strerror(why) in said
        one = code == -signal.SIGKILL if torn else one
        count["said"] += one
        if not one:
            print(f"  write {number}: {code} {said}")
        check(folder, old, new, count)
        run_in_child(Project(folder), stage)
        finish(folder, new, count)
        shutil.rmtree(folder)
    return count


def check(folder: Path, old: dict[str, bytes], new: dict[str, bytes], count: Counter) -> None:
    """Whether every file under a final name is that of the earlier run or of the quiet one."""
    found = contents(folder)
    for name in {*old, *new}:
        known = [content[name] for content in (old, new) if name in content]
        count["half"] += name in found and found[name] not in known
        count["lost"] += name not in found and name in old and name in new


def finish(folder: Path, new: dict[str, bytes], count: Counter) -> None:
    found = contents(folder)
    same = {name: content for name, content in found.items() if name in new} == new
    count["identical"] += same
    count["left"] += len(set(found) - set(new))
    if not same or set(found) - set(new):
        print(f"  differ: {[n for n in new if found.get(n) != new[n]]}, left over: {sorted(set(found) - set(new))}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    main()
