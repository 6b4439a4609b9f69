"""The tables of the data card, counted from the annotation files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from minircnn.datasets.toytown import CLASSES
from minircnn.files import write_atomically
from workshop.toytown.build import SPLITS
from workshop.toytown.layout import MIN_VISIBLE_SHARE
from workshop.toytown.photographs import PHOTOGRAPHS

BEGIN = "<!-- tables: written by `python -m workshop.toytown --card` -->"
END = "<!-- end of tables -->"


def card_tables(folder: Path) -> str:
    """The tables in Markdown, for the set in `folder`."""
    splits = {name: json.loads((folder / f"instances_{name}.json").read_text(encoding="utf-8")) for name in SPLITS}
    return "\n\n".join([_counts(splits), _sizes(splits), _hidden(splits), _backgrounds(splits), _photographs()])


def write_card(folder: Path, card: Path) -> None:
    """Replace the tables between the two marks of the data card.

    Raises:
        ValueError: if the card lacks the marks.
    """
    text = card.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{card}: it must hold the line {BEGIN} once and, below it, the line {END} once")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    write_atomically(card, f"{before}{BEGIN}\n\n{card_tables(folder)}\n\n{END}{after}".encode())


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _objects(splits: dict[str, Any], name: str | None = None) -> list[dict[str, Any]]:
    """All annotations, or those of one class."""
    label = None if name is None else CLASSES.index(name)
    return [a for content in splits.values() for a in content["annotations"] if label in (None, a["category_id"])]


def _counts(splits: dict[str, Any]) -> str:
    rows: list[list[Any]] = []
    for label, name in enumerate(CLASSES[1:], start=1):
        counts = [sum(a["category_id"] == label for a in content["annotations"]) for content in splits.values()]
        rows.append([f"{label} {name}", *counts, sum(counts)])
    objects = [len(content["annotations"]) for content in splits.values()]
    images = [len(content["images"]) for content in splits.values()]
    rows += [["objects", *objects, sum(objects)], ["images", *images, sum(images)]]
    for number in range(1, 7):
        shown = []
        for content in splits.values():
            per_image = np.bincount(
                [a["image_id"] for a in content["annotations"]], minlength=len(content["images"]) + 1
            )[1:]
            shown.append(int((per_image == number).sum()))
        rows.append([f"images with {number} object{'s' if number > 1 else ''}", *shown, sum(shown)])
    return "**How many**\n\n" + _table(["class", *splits, "together"], rows)


def _sizes(splits: dict[str, Any]) -> str:
    rows = []
    for name in CLASSES[1:]:
        objects = _objects(splits, name)
        width, height = np.array([a["bbox"][2:] for a in objects]).T
        area = np.array([a["area"] for a in objects])
        aspect = np.quantile(width / height, [0.1, 0.5, 0.9])
        rows.append([name, _range(width), _range(height), _range(area), " / ".join(f"{v:.2f}" for v in aspect)])
    header = ["class", "width (min / median / max)", "height", "area", "width : height (10% / median / 90%)"]
    return "**How large**: the visible part, in pixels, all splits\n\n" + _table(header, rows)


def _range(values: np.ndarray) -> str:
    return f"{values.min():.0f} / {np.median(values):.0f} / {values.max():.0f}"


def _hidden(splits: dict[str, Any]) -> str:
    rows = []
    for name in [*CLASSES[1:], None]:
        objects = _objects(splits, name)
        share = np.array([a["area"] / a["full_area"] for a in objects])
        edge = np.array([_touches_edge(a["bbox"], a["segmentation"]["size"]) for a in objects])
        row = [share > 0.99, (share <= 0.99) & (share > 0.75), (share <= 0.75) & (share > 0.5), share <= 0.5, edge]
        rows.append([name or "all", *(f"{np.mean(part):.0%}" for part in row)])
    header = [
        "class",
        "whole",
        "75–99% visible",
        "50–75%",
        f"{100 * MIN_VISIBLE_SHARE:.0f}–50%",
        "touches the image's edge",
    ]
    return "**How much can be seen** of an object, counted with its part outside the image\n\n" + _table(header, rows)


def _touches_edge(bbox: list[float], size: list[int]) -> bool:
    x, y, width, height = bbox
    return x <= 0 or y <= 0 or x + width >= size[1] or y + height >= size[0]


def _backgrounds(splits: dict[str, Any]) -> str:
    names = sorted({image["background"] for content in splits.values() for image in content["images"]})
    rows = [
        [name, *(sum(i["background"] == name for i in content["images"]) for content in splits.values())]
        for name in names
    ]
    return "**Backgrounds** (images)\n\n" + _table(["background", *splits], rows)


def _photographs() -> str:
    rows = [
        [
            name,
            f"{p.title} (`{p.file}`)",
            p.source,
            p.license,
            ", ".join(split for split, part in SPLITS.items() if name in part.photographs),
        ]
        for name, p in PHOTOGRAPHS.items()
    ]
    table = _table(["photograph", "shows", "source", "license", "used in"], rows)
    return (
        "**Photographs**, all from inside scikit-image's wheel, licenses as its documentation states them\n\n"
        + table.replace("--:", "---")
    )
