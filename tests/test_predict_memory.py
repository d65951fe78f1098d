"""predict holds a bounded number of pictures, however many there are, and opens the next batches during the forward pass."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from unittest import mock

import yaml

from stages.lib import decoding, images, tagging
from tests.project import Project


def test_the_next_batches_and_no_more_are_opened_during_the_forward_pass(own: Project, tmp_path: Path) -> None:
    settings = yaml.safe_load((own / "params.yaml").read_text())
    settings["predict"] |= {"batch_size": 20, "workers": 1}
    (own / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "many").mkdir()
    for index in range(100):
        shutil.copy(own / "images" / "1.png", tmp_path / "many" / f"{index:03}.png")
    opened, answered, lead = 0, 0, []
    enough, real_open, real_answered = threading.Condition(), images.open_square, tagging.answered

    def counted_open(*given):
        nonlocal opened
        with enough:
            opened += 1
            enough.notify_all()
        return real_open(*given)

    def counted_answered(predictor, batch):
        nonlocal answered
        answered += len(batch[0])
        with enough:  # the forward pass of this batch: meanwhile the next one is opened
            assert enough.wait_for(lambda: opened >= min(100, answered + 20), timeout=20)
            lead.append(opened - answered)
        return real_answered(predictor, batch)

    with mock.patch.object(images, "open_square", counted_open), mock.patch.object(tagging, "answered", counted_answered):
        own.run("predict", "--images", tmp_path / "many", "--out", tmp_path / "out.csv")
    assert opened == 100
    assert max(lead) <= 40  # one batch waits for the network, one is being opened
    assert decoding.AHEAD < 20  # or this would show nothing
