"""Figures of notebook 00: the tasks on one image, the corner of a box, aspect ratios and sizes of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from minircnn.course.figures.display import show
from minircnn.course.figures.panels import outline
from minircnn.plotting import class_color, draw_objects, image_grid, show_image


def four_tasks(image: Tensor, target: Mapping[str, Tensor], classes: Sequence[str], name: str) -> None:
    """One image with what classification, detection, semantic and instance segmentation say about it."""
    of_class = torch.zeros(image.shape[1:], dtype=torch.int64)  # 0 is "no object"
    of_object = of_class.clone()
    labels = target["labels"].tolist()
    for number, (mask, label) in enumerate(zip(target["masks"], labels, strict=True), start=1):
        of_class[mask], of_object[mask] = label, number
    colors = [class_color(0)]
    for label in labels:  # a second object of a class gets a lighter color
        color = class_color(label)
        colors.append(tuple(0.4 * part + 0.6 for part in color) if color in colors else color)
    semantic = _painted(image, of_class, [class_color(label) for label in range(len(classes))])
    instances = torch.where(of_object > 0, _painted(image, of_object, colors), image)
    titles = [
        f"Classification: “{name}”, perhaps",
        "Detection: classes and boxes",
        "Semantic segmentation: pixels by class",
        "Instance segmentation: pixels by object",
    ]
    axes = image_grid([image, image, semantic, instances], titles=titles, columns=2, width=7)
    for ax in axes[1::2]:
        draw_objects(ax, target, classes, masks=False)
    names = ", ".join(classes[label] for label in labels)
    alt = f"The same scene four times: with a single class; with {len(labels)} boxes ({names}); with every pixel in the"
    show(axes, alt=f"{alt} color of its class; with the boxes and every object in a color of its own.")


def _painted(image: Tensor, numbers: Tensor, colors: Sequence[Sequence[float]]) -> Tensor:
    """Every pixel tinted with the color of its number ``(H, W)``, and white lines where the number changes."""
    tinted = 0.3 * image + 0.7 * torch.tensor(colors)[numbers].permute(2, 0, 1)
    changes = torch.zeros(numbers.shape, dtype=torch.bool)
    changes[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    changes[1:] |= numbers[1:] != numbers[:-1]
    return torch.where(changes, 1.0, tinted)


def corner_of_box(image: Tensor, box: Tensor, mask: Tensor, label: int) -> None:
    """An object with its box, and the lower right corner of the box so large that pixels can be counted."""
    x2, y2 = box[2:].int().tolist()
    figure, (whole, close) = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
    show_image(image, ax=whole, title="an object and its box …")
    draw_objects(whole, {"boxes": box[None], "labels": torch.tensor([label])}, names=False)
    outline(whole, [x2 - 11, y2 - 11, x2 + 3, y2 + 3], "white", width=1.5, edge=False)
    show_image(image, ax=close, title="… and the white square, enlarged")
    tint = torch.zeros(*mask.shape, 4)
    tint[mask] = torch.tensor([*class_color(label), 0.75])
    height, width = mask.shape
    close.imshow(tint.numpy(), extent=(0, width, height, 0), interpolation="nearest")
    close.hlines(range(height + 1), 0, width, color="white", linewidth=0.6)  # edges of the pixels
    close.vlines(range(width + 1), 0, height, color="white", linewidth=0.6)
    outline(close, box, "black", width=3, edge=False)
    close.set(xlim=(x2 - 11, x2 + 3), ylim=(y2 + 3, y2 - 11))
    close.set(xticks=[x2 - 10, x2 - 1, x2], yticks=[y2 - 10, y2 - 1, y2])
    last = mask.nonzero().amax(dim=0).tolist()
    alt = f"The lower right corner of a box, enlarged: it ends at x = {x2} and y = {y2}; the last column and row of the"
    show(figure, alt=f"{alt} mask have the numbers {last[1]} and {last[0]}.")


def shapes_and_sizes(ratios: Mapping[str, Tensor], sizes: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Height : width of the boxes of each class, and the square root of their areas."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    order = sorted(ratios, key=lambda name: -ratios[name].median())
    parts = left.violinplot([ratios[name].log2().numpy() for name in order], showmedians=True)
    for body, name in zip(parts["bodies"], order, strict=True):
        body.set(facecolor=class_color(classes.index(name)), alpha=0.8)
    for key in ("cmedians", "cmins", "cmaxes", "cbars"):
        parts[key].set(color="0.3", linewidth=1)
    left.set_xticks(range(1, len(order) + 1), order)
    left.set_yticks([-2, -1, 0, 1, 2], ["1:4", "1:2", "1:1", "2:1", "4:1"])
    left.set(title="Aspect ratios", ylabel="height : width")
    left.axhline(0, color="0.7", linewidth=1)
    colors = [class_color(classes.index(name)) for name in sizes]
    values = [of_class.numpy() for of_class in sizes.values()]
    right.hist(values, bins=range(0, 105, 8), stacked=True, color=colors, label=list(sizes))
    right.set(title="Sizes", xlabel="√(width · height) in pixels", ylabel="objects")
    right.legend(frameon=False)
    every = torch.cat(list(sizes.values()))
    alt = f"Left: aspect ratios by class, from the tallest, {order[0]}, to the widest, {order[-1]}. Right: the sizes of"
    show(figure, alt=f"{alt} the objects, from {every.min():.0f} to {every.max():.0f} pixels.")
