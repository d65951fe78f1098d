"""Which files of this project a stage is made of, and a digest of what stands in them."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files_of(module: str) -> set[str]:
    """Files of this project that `module` ("stages.train") consists of: its own and what it imports, directly or not.

    Read from the source, wherever the import statement stands: what a process happens to have imported may be more.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = name.replace(".", "/") + ".py"
        if path in found or not (ROOT / path).is_file():
            continue
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def digest_of(module: str) -> str:
    """SHA-256, in hex, of the files of `files_of` and their names."""
    digest = hashlib.sha256()
    for path in sorted(files_of(module)):
        content = (ROOT / path).read_bytes()
        digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()
