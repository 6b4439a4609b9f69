"""One linear support vector machine a class, and the search for the negatives that it needs (R-CNN, 2.3, appendix B).

A picture gives hundreds of negatives for each positive, and most of them are easy: sky is not a cat. *Hard negative
mining* keeps only those that the machine does not yet reject with a margin, learns again, and so on.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.svm import LinearSVC
from torch import Tensor

from minircnn.boxes import box_iou

HARD, EASY = -1.0, -1.2
"""Margins: a negative above HARD costs something and is taken in; one below EASY has become irrelevant and goes."""


@dataclass(frozen=True)
class SVMSettings:
    """How the machines learn.

    Attributes:
        cost: C, what a training example on the wrong side of its margin costs, against the size of the weights.
        positive_weight: how much more that is for a positive. Paper vs code: only R-CNN's program says so.
        bias_scale: the constant feature that carries the bias, as large as features are, so that it comes cheap.
        retrain_after: new negatives, of a class, after which its machine learns again.
        passes: over all pictures. The paper found one enough, and so do we.
    """

    cost: float = 1e-3
    positive_weight: float = 2.0
    bias_scale: float = 10.0
    retrain_after: int = 2000
    passes: int = 1


@dataclass
class MiningRecord:
    """What happened to one class, an entry for each time its machine learned.

    Attributes:
        positives: examples of the class.
        negatives: negatives that the machine learned from, each time.
        found: hard negatives that had been found since the time before.
        weights: the machine each time, ``(D + 1,)``, the bias last.
    """

    positives: int = 0
    negatives: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)


def scale_to(norm: float, lengths: Tensor) -> float:
    """The factor that gives lengths (N,) a mean of ``norm``; 1 where there is nothing to scale."""
    mean = float(lengths.mean()) if len(lengths) else 0.0
    return norm / mean if mean > 0 else 1.0


def far_from_class(proposals: Tensor, objects: Mapping[str, Tensor], num_classes: int, iou: float) -> Tensor:
    """For which classes each proposal may serve as a negative: those of which it overlaps no object by ``iou``.

    Args:
        proposals: ``(P, 4)``.
        objects: ``boxes`` ``(G, 4)`` and ``labels`` ``(G,)``.
        num_classes: K, with background.
        iou: the limit.

    Returns:
        ``(P, K - 1)`` bool.
    """
    near = box_iou(proposals, objects["boxes"]).nan_to_num(0) >= iou  # (P, G)
    is_class = objects["labels"][:, None] == torch.arange(1, num_classes)  # (G, K - 1)
    return ~(near.float() @ is_class.float() > 0)


def train_svm(positives: Tensor, negatives: Tensor, settings: SVMSettings) -> Tensor:
    """A linear SVM with hinge loss, by scikit-learn's LinearSVC.

    Args:
        positives: ``(N, D)``.
        negatives: ``(M, D)``.
        settings: see there.

    Returns:
        ``(D + 1,)`` float32: weights, and the bias last. ``features @ w[:-1] + w[-1]`` is the margin: at least 1 for
        a positive that costs nothing, at most -1 for such a negative.

    Raises:
        ValueError: positives or negatives are missing.
    """
    if not len(positives) or not len(negatives):
        raise ValueError(f"an SVM needs both, but there are {len(positives)} positives, {len(negatives)} negatives")
    machine = LinearSVC(
        C=settings.cost,
        loss="hinge",
        class_weight={1: settings.positive_weight, 0: 1.0},
        intercept_scaling=settings.bias_scale,
        max_iter=100_000,
        random_state=0,
    )
    wanted = np.repeat([1, 0], [len(positives), len(negatives)])
    machine.fit(torch.cat([positives, negatives]).double().numpy(), wanted)
    return torch.from_numpy(np.append(machine.coef_[0], machine.intercept_)).float()


class _Learner:
    """One class: its positives, the negatives that it keeps, and its machine as it is now."""

    def __init__(self, positives: Tensor, settings: SVMSettings) -> None:
        self.positives, self.settings = positives, settings
        self.negatives, self.ids = positives.new_zeros(0, positives.shape[1]), torch.zeros(0, dtype=torch.int64)
        self.waiting: list[tuple[Tensor, Tensor]] = []
        self.weights: Tensor | None = None
        self.record = MiningRecord(positives=len(positives))

    def look_at(self, features: Tensor, ids: Tensor) -> None:
        """Takes the hard ones of these negatives in, ``(P, D)`` with numbers ``(P,)``; without a machine, all are."""
        hard = torch.ones(len(features), dtype=torch.bool)
        if self.weights is not None:
            hard = margins(features, self.weights) > HARD
        hard &= ~torch.isin(ids, self.ids)
        self.waiting.append((features[hard], ids[hard]))
        if self.num_waiting >= self.settings.retrain_after:
            self.learn()

    @property
    def num_waiting(self) -> int:
        return sum(len(ids) for _, ids in self.waiting)

    def learn(self) -> None:
        """Trains the machine on what is there, then drops the negatives that have become easy."""
        self.record.found.append(self.num_waiting)
        self.negatives = torch.cat([self.negatives, *(features for features, _ in self.waiting)])
        self.ids = torch.cat([self.ids, *(ids for _, ids in self.waiting)])
        self.waiting = []
        self.weights = train_svm(self.positives, self.negatives, self.settings)
        self.record.negatives.append(len(self.negatives))
        self.record.weights.append(self.weights)
        kept = margins(self.negatives, self.weights) >= EASY
        self.negatives, self.ids = self.negatives[kept], self.ids[kept]


def margins(features: Tensor, weights: Tensor) -> Tensor:
    """``features · w + b``: (N, D), (D + 1,) to (N,)."""
    return features @ weights[:-1] + weights[-1]


def mine_hard_negatives(
    positives: list[Tensor],
    pictures: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    settings: SVMSettings,
) -> tuple[Tensor, list[MiningRecord]]:
    """Trains the machines of all classes in passes over the pictures, one picture in memory at a time.

    Args:
        positives: for each class ``(N, D)`` features of its objects; N at least 1.
        pictures: starts a pass: for each picture ``(P, D)`` features of its proposals, and ``(P, classes)`` bool, for
            which classes each may serve as a negative.
        settings: see there.

    Returns:
        ``(classes, D + 1)`` weights with the bias last, and what happened to each class.
    """
    learners = [_Learner(features, settings) for features in positives]
    for _ in range(settings.passes):
        first = 0  # number of the picture's first proposal, counted over all pictures
        for features, negative in pictures():
            ids = torch.arange(first, first + len(features))
            first += len(features)
            for learner, allowed in zip(learners, negative.T, strict=True):
                learner.look_at(features[allowed], ids[allowed])
        for learner in learners:
            if learner.num_waiting or learner.weights is None:
                learner.learn()
    return torch.stack([learner.weights for learner in learners]), [learner.record for learner in learners]
