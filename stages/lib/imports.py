"""timm and torchvision without PyTorch's compiler and without the hub's client: two seconds less before a stage begins.

Both touch `torch._dynamo`, the front end of torch.compile, while they are imported: torchvision for one function's name, timm
to mark code that must not be compiled. It brings sympy and triton with it, and nothing here compiles. timm also looks whether
it could fetch weights by itself, with huggingface_hub; here `downloads` fetches them, and imports it where there is something
to fetch. While the two are imported, and only then, a stand-in has the compiler's name, and nothing the hub's. The compiler is
there afterwards for whoever asks; timm, in a process that imported it through here, no longer fetches anything itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMPILER, HUB = "torch._dynamo", "huggingface_hub"
ASK_FOR_IT = ("timm", "torchvision", "torchvision.tv_tensors")


class _Finder(MetaPathFinder):
    """Finds what ASK_FOR_IT names as usual, and has it run beside the stand-in."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in ASK_FOR_IT:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                import torch  # noqa: F401 - so that what PyTorch imports by itself is the real thing

                with _spared():
                    run(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _spared() -> Iterator[None]:
    if COMPILER in sys.modules:  # the real one, or the stand-in of the package that imports this one
        yield
        return
    stand_in, utils = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    stand_in.__path__ = []
    stand_in.disable = _disable  # type: ignore[attr-defined]
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    names: dict[str, ModuleType | None] = {stand_in.__name__: stand_in, utils.__name__: utils}
    if HUB not in sys.modules:
        names[HUB] = None  # an import of it fails, which timm is prepared for
    sys.modules.update(names)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)


def _disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Callable[..., Any]:
    """What nothing compiles need not be kept from being compiled."""
    return function if function is not None else lambda given: given


def _is_compile_supported(*given: Any) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(*given)


def spare_compiler_and_hub() -> None:
    """Whoever imports timm or torchvision from here on gets it so; where they are imported already, nothing changes."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
