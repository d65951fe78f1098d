"""Stages begin without what they do not need at once: PyTorch's compiler, the hub's client, scikit-learn, matplotlib."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import ROOT


def run(program: str) -> None:
    """In a process of its own: this one has imported everything long ago."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_compiler_stays_out_until_somebody_asks_for_it_and_then_it_is_the_real_one() -> None:
    run(
        "import sys, stages.evaluate, timm, torch, torchvision\n"
        "from stages.lib import model\n"
        "assert model.shapes('tf_efficientnet_lite0', 32, 3, 16, 0.1, 0.1)['head.1.weight'] == (16, 1280)\n"
        "assert not [name for name in sys.modules if name.startswith('torch._dynamo')]\n"
        "from torchvision.ops.roi_align import is_compile_supported, roi_align\n"
        "box = torch.tensor([[0, 0, 0, 4, 4.0]])\n"
        "assert roi_align(torch.ones(1, 3, 8, 8), box, 2).shape == (1, 3, 2, 2)\n"
        "assert torch.compile(lambda given: given + 1, backend='eager')(torch.zeros(1)).item() == 1\n"
        "assert torch._dynamo is sys.modules['torch._dynamo'] and torch._dynamo.__file__\n"
        "import torch._dynamo.utils\n"
        "assert is_compile_supported('cpu') == torch._dynamo.utils.is_compile_supported('cpu')\n"
    )


def test_the_client_of_the_hub_stays_out_until_something_is_fetched() -> None:
    run(
        "import sys, stages.evaluate, stages.lib.all_folds, timm\n"
        "assert not [name for name in sys.modules if name.startswith('huggingface_hub')]\n"
        "from stages.lib import downloads\n"
        "assert downloads.hub.hf_hub_download.__module__ == 'huggingface_hub.file_download'\n"
        "assert timm.create_model('test_resnet', pretrained=False) is not None\n"
    )


def test_a_client_of_the_hub_that_is_there_is_left_alone() -> None:
    run(
        "import huggingface_hub, sys, stages.lib.backbones, timm\n"
        "assert sys.modules['huggingface_hub'] is huggingface_hub\n"
        "assert timm.models._hub.has_hf_hub()\n"
    )


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("stages.lib.all_folds", ["sklearn", "scipy.stats", "matplotlib"]),
        ("stages.evaluate", ["sklearn", "scipy.stats"]),
        ("stages.predict", ["sklearn", "scipy.stats", "matplotlib"]),
    ],
)
def test_stages_begin_without_what_comes_later_or_not_at_all(module: str, absent: list[str]) -> None:
    run(f"import sys, {module}\nassert not set({absent}) & set(sys.modules), set({absent}) & set(sys.modules)\n")


def test_by_themselves_the_two_packages_bring_the_compiler_and_the_client() -> None:
    """When this fails they have learned to do without, and that part of stages/lib/imports.py can go."""
    run(
        "import sys, timm, torchvision\n"
        "assert 'huggingface_hub' in sys.modules\n"
        "compiler = sys.modules['torch._dynamo']\n"
        "import stages\n"
        "assert sys.modules['torch._dynamo'] is compiler\n"
    )
