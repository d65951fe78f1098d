"""Do two clones, one and two workers, `dvc exp run --queue` and `--temp` end with the same bytes?

    python -m tests.bench.clones --images 60

Makes clones of this repository's last commit in a temporary folder, shrinks the settings (`epochs` 1, small pictures), takes
the first pictures of the sample, once as they are in git and once as a user's own, kept by `dvc add`, and compares the hashes
of every output in dvc.lock. With --threads it also says how far the metrics of one and two threads lie apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SHRUNK = {"epochs": 1, "validate.side": 96, "train.resolution": 64, "train.test_resolution": 64, "freeze": "layer4"}


class Clone:
    """A clone whose data is the first pictures of the sample, in git or in data/images under `dvc add`."""

    def __init__(self, folder: Path, count: int, own: bool) -> None:
        self.folder = folder
        self.run("git", "clone", "-q", str(ROOT), str(folder), at=ROOT)
        self.run("git", "config", "user.name", "bench")
        self.run("git", "config", "user.email", "bench@localhost")
        lines = (folder / "data/sample/labels.txt").read_text().splitlines()[: count + 1]
        places = ("data/images", "data/new", "data/labels.txt")
        for place in places[:2]:
            (folder / place).mkdir(parents=True)
        for line in lines[1:]:
            name = line.split()[0]
            shutil.copy(folder / "data/sample/images" / name, folder / "data/images" / name)
        for path in sorted((folder / "data/sample/unlabelled").iterdir())[:8]:
            shutil.copy(path, folder / "data/new")
        (folder / "data/labels.txt").write_text("\n".join(lines) + "\n")
        (folder / "dvc.lock").unlink()
        self.set(SHRUNK | {"data.images": places[0], "data.labels": places[2], "predict.images": places[1]})
        if own:
            self.run("dvc", "add", "-q", *places)
            self.run("git", "add", *(f"{place}.dvc" for place in places))
        else:
            self.run("git", "add", "-f", *places)
        self.commit()

    def set(self, changes: dict[str, object]) -> None:
        settings = yaml.safe_load((self.folder / "params.yaml").read_text())
        for key, value in changes.items():
            section, _, name = key.rpartition(".")
            (settings[section] if section else settings)[name] = value
        (self.folder / "params.yaml").write_text(yaml.safe_dump(settings))

    def commit(self) -> None:
        self.run("git", "commit", "-qam", "bench")

    def run(self, program: str, *args: str, at: Path | None = None, **more: str) -> str:
        command = [sys.executable, "-m", "dvc", *args] if program == "dvc" else [program, *args]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | more
        done = subprocess.run(command, cwd=at or self.folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def repro(self, **more: str) -> dict[str, str]:
        self.run("dvc", "repro", **more)
        return hashes((self.folder / "dvc.lock").read_text())

    def experiment(self, *how: str) -> dict[str, str]:
        """The hashes of an experiment that ran elsewhere; the workspace has no results at all."""
        self.run("dvc", "exp", "run", "-n", "bench", *how)
        if "--queue" in how:
            self.run("dvc", "queue", "start")
            self.run("dvc", "queue", "logs", "--follow", "bench")
        listed = self.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
        (reference,) = [name for name in listed if name.endswith("/bench")]
        return hashes(self.run("git", "show", f"{reference}:dvc.lock"))


def hashes(lock: str) -> dict[str, str]:
    stages = yaml.safe_load(lock)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--threads", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(0 if compare(args, Path(scratch)) else 1)


def compare(args: argparse.Namespace, scratch: Path) -> bool:
    os.environ |= of_threads(1)
    first = Clone(scratch / "first", args.images, own=False)
    reference = first.repro()
    print(f"first clone: {len(reference)} outputs", flush=True)
    same = True

    def told(name: str, other: dict[str, str]) -> None:
        nonlocal same
        differ = [path for path in {**reference, **other} if reference.get(path) != other.get(path)]
        print(f"{name}: {len(reference) - len(differ)} of {len(reference)} outputs equal", *differ, flush=True)
        same = same and not differ

    told("second clone", Clone(scratch / "second", args.images, own=False).repro())
    workers = Clone(scratch / "workers", args.images, own=False)
    workers.set({"train.workers": 2, "predict.workers": 2})
    told("2 workers", workers.repro())
    if args.threads:
        threads(scratch, first, args.images)
    for how in ("--temp", "--queue"):
        for own in (False, True):
            clone = Clone(scratch / f"{how}-{own}", args.images, own)
            told(f"exp run {how}, images {'by dvc add' if own else 'in git'}", clone.experiment(how))
    return same


def of_threads(count: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(count))


def threads(scratch: Path, first: Clone, count: int) -> None:
    second = Clone(scratch / "threads", count, own=False)
    second.repro(**of_threads(2))
    for name in ("scores.json", "train.json"):
        one, two = (json.loads((clone.folder / "metrics" / name).read_text()) for clone in (first, second))
        apart = {key: abs(value - two[key]) for key, value in one.items() if isinstance(value, float) and key in two}
        worst = max(apart, key=lambda key: apart[key])
        print(f"1 and 2 threads, {name}: {len(apart)} metrics at most {apart[worst]:.2e} apart ({worst})")


if __name__ == "__main__":
    main()
