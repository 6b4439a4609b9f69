"""What one sees of a training while it runs: curves, predictions, the best weights so far, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minircnn.cli import common
from minircnn.cli.common import files_beside
from minircnn.cli.data import say
from minircnn.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.datasets.images import ImageDataset
    from minircnn.training import JointTrainingSettings

LEAST_PART = 100  # iterations; over fewer, losses go up and down, and those of boxes rise before they fall
RECALL_IOU, LOW_RECALL = 0.5, 0.3  # a proposal covers an object; below, the heads have next to nothing to learn from
IMAGES, LEAST_SCORE = 6, 0.5  # on the sheet of predictions
NAMES = {
    "val_ap": "AP of boxes",
    "val_ap50": "AP50 of boxes",
    "val_mask_ap": "AP of masks",
    "val_mask_ap50": "AP50 of masks",
    "val_recall": "recall of proposals",
}


class Watch:
    """Follow a training: :meth:`measure` is for ``evaluate`` of :func:`minircnn.training.fit`, a call for ``watch``.

    With ``data``, validation images, the best weights so far, a curve and predictions are written beside ``out``, the
    file of the weights, and ``about`` with them; without, only losses are looked at. ``proposals`` are those of these
    images, for detectors that make none.
    """

    def __init__(
        self,
        out: Path,
        settings: JointTrainingSettings,
        data: ImageDataset | None = None,
        proposals: Sequence[Tensor] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.out, self.iterations, self.data, self.about = out, settings.iterations, data, about or {}
        self.warmup = round(settings.loop().warmup * settings.iterations)  # until then nobody can expect much
        self.proposals = proposals or [None] * len(data or ())
        self.targets = [data.load_target(index, encoded=True) for index in range(len(data or ()))]
        self.found: list[common.Detections] = []
        self.warned: set[str] = set()

    def measure(self, model: common.Model) -> dict[str, float]:
        """Average precision on the validation images, and the share of their objects that proposals cover."""
        from minircnn.evaluation import evaluate, proposal_recall

        device, proposed, self.found = next(model.parameters()).device, [], []
        for index, boxes in enumerate(self.proposals):
            image = self.data.load_image(index)
            self.found.append(common.detect_in(model, image, boxes))
            if boxes is None:
                proposed.append(model.propose([image.to(device)])[0]["boxes"].cpu())
        numbers = {}
        for prefix, kind in (("val", "boxes"), ("val_mask", "masks")):
            if kind in self.found[0]:
                result = evaluate(self.found, self.targets, classes=model.classes, kind=kind)
                numbers |= {f"{prefix}_ap": result.ap, f"{prefix}_ap50": result.ap50}
        if proposed:
            most = max(max(map(len, proposed)), 1)
            numbers["val_recall"] = float(proposal_recall(proposed, self.targets, RECALL_IOU, [most])[0])
        return numbers

    def __call__(self, model: common.Model, history: Sequence[dict[str, float]]) -> None:
        """Look at the losses of all iterations so far, and at an evaluation, if the last of them has one."""
        done, part = len(history), max(self.iterations // 5, LEAST_PART)
        if done % part == 0 and done > part:
            self._look_at_losses(history, part)
        if "val_ap" not in history[-1]:
            return
        from minircnn.weights import save

        recall, files = history[-1].get("val_recall", 1), files_beside(self.out)
        if done > self.warmup and recall < LOW_RECALL:
            self._warn(
                "recall",
                f"after {done} iterations proposals cover only {100 * recall:.0f} % of the objects of the validation "
                "images: look at --min-size and --anchor-sizes, and at the annotations with `minircnn data check`",
            )
        score = "val_mask_ap" if "val_mask_ap" in history[-1] else "val_ap"
        if history[-1][score] >= max(row.get(score, 0.0) for row in history):
            save(model, files["best"], {**self.about, "iteration": done, "validation": history[-1]})
        write_atomically(files["predictions"], self._draw_predictions(model.classes))
        write_atomically(files["curve"], draw_curve(history, len(self.targets)))

    def _look_at_losses(self, history: Sequence[dict[str, float]], part: int) -> None:
        """Compare the last iterations with the first, and with those before: a loss may rise in the beginning."""
        few = part // 4
        spans = (history[:few], history[-part - few : -part], history[-few:])
        first, before, last = (float(np.mean([_total(row) for row in rows])) for rows in spans)
        if last >= max(first, before):
            self._warn(
                "loss",
                f"the loss is not falling: {first:.3g} in the first {few} iterations, {last:.3g} in the last {few} of "
                f"{len(history)}; try a lower --learning-rate, and look at the annotations with `minircnn data check`",
            )

    def _warn(self, kind: str, text: str) -> None:
        """Say it, of each kind once."""
        if kind not in self.warned:
            self.warned.add(kind)
            say(f"Warning: {text}")

    def _draw_predictions(self, classes: Sequence[str]) -> bytes:
        """The first validation images with what is found in them."""
        from minircnn.plotting import GRID_SIDE, draw_png, make_drawing

        drawings, titles = [], []
        for index, found in enumerate(self.found[:IMAGES]):
            sure = (found["scores"] >= LEAST_SCORE).nonzero()[:, 0].tolist()
            shown = {name: [v[i] for i in sure] if isinstance(v, list) else v[sure] for name, v in found.items()}
            drawings.append(make_drawing(self.data.load_image(index), shown, GRID_SIDE))
            counts = f"{len(sure)} found above {LEAST_SCORE}, {len(self.targets[index]['labels'])} annotated"
            titles.append(f"{self.data.image_path(index).name}\n{counts}")
        return draw_png(drawings, classes, titles, columns=3, names=len(classes) > 2)


def _total(row: dict[str, float]) -> float:
    return sum(value for name, value in row.items() if not name.startswith("val"))


def draw_curve(history: Sequence[dict[str, float]], images: int) -> bytes:
    """A PNG: the losses, each as a running mean, and what was measured on so many validation images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from minircnn.plotting import render_png

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    window = max(len(history) // 50, 1)
    for name in (name for name in history[0] if not name.startswith("val")):
        values = np.convolve([row[name] for row in history], np.ones(window) / window, mode="valid")
        left.plot(np.arange(window, len(history) + 1), values, label=name.removeprefix("loss_").replace("_", " "))
    title = f"losses, mean over {window} iterations" if window > 1 else "losses"
    left.set(xlabel="iteration", title=title, ylim=(0, None))
    measured = [(done, row) for done, row in enumerate(history, start=1) if "val_ap" in row]
    for name, title in NAMES.items():
        if name in measured[-1][1]:
            percent = [100 * row[name] for _, row in measured]
            right.plot([done for done, _ in measured], percent, "o-", label=title, ms=4)
    right.set(xlabel="iteration", ylabel="%", title=f"on {images} validation images", ylim=(0, 100), xlim=(0, None))
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        return render_png(figure)
    finally:
        plt.close(figure)
