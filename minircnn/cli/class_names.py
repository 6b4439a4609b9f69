"""Which classes a detector and some pictures have in common; labels are numbers of names, which need not agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minircnn.cli.errors import RefusedError

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 8  # names that a message lists


@dataclass(frozen=True)
class Common:
    """The classes that can be measured.

    Attributes:
        classes: names, "background" first, in the order of the pictures' labels.
        known: the detector's names, "background" first.
        shown: the pictures' names, "background" first.
    """

    classes: Sequence[str]
    known: Sequence[str]
    shown: Sequence[str]

    def of_detections(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Detections with the labels of :attr:`classes`; those of other classes are left out."""
        return _relabelled(found, self.known, self.classes)

    def of_target(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Objects with the labels of :attr:`classes`; those of other classes are left out."""
        return _relabelled(target, self.shown, self.classes)

    @property
    def left_out(self) -> str:
        """What is not measured, as a sentence; nothing if all is."""
        unknown = [name for name in self.shown if name not in self.known]
        absent = [name for name in self.known if name not in (*self.shown, "N/A")]  # a number of COCO's without a class
        if unknown:
            return f"not measured, because the detector does not know them: {listed(unknown)}"
        return f"not measured, because these pictures do not tell: {listed(absent)}" if absent else ""


def common_classes(weights: Path, known: Sequence[str], shown: Sequence[str]) -> Common:
    """What a detector and some pictures have in common, by name.

    Args:
        weights: the detector's file, for the message.
        known: its classes; ``known[0]`` is the background.
        shown: those of the pictures, likewise.

    Raises:
        RefusedError: both have classes that the other has not: then nobody can have meant this.
    """
    both = [name for name in shown[1:] if name in known[1:]]
    if len(both) < min(len(known), len(shown)) - 1 or not both:
        advice = f"; name those that both have with --classes {','.join(both)}" if both else ""
        raise RefusedError(
            f"--weights {weights}: it knows {listed(known[1:])}, but these pictures show {listed(shown[1:])}{advice}"
        )
    return Common(["background", *both], known, shown)


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, of many the first.

    >>> listed(["cat", "dog"]), listed("abcdefghijk")
    ('cat, dog', 'a, b, c, d, e, f, g, h and 3 more')
    """
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more


def _relabelled(values: Mapping[str, Any], old: Sequence[str], new: Sequence[str]) -> dict[str, Any]:
    """What belongs to one picture, in other labels."""
    import torch

    if list(old) == list(new):
        return dict(values)
    table = torch.tensor([new.index(name) if name in new else 0 for name in old])
    labels: Tensor = table[values["labels"]]
    kept = labels > 0
    chosen = {name: value[kept] for name, value in values.items() if isinstance(value, torch.Tensor)}
    if isinstance(values.get("masks"), list):  # run-length encodings
        chosen["masks"] = [values["masks"][index] for index in kept.nonzero()[:, 0].tolist()]
    return {**values, **chosen, "labels": labels[kept]}
