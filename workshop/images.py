"""Draws the image at the top of the README: ``python -m workshop.images``."""

from minircnn.datasets import ToyTown
from minircnn.plotting import draw_objects, image_grid
from minircnn.shipped import PROJECT_FOLDER

SCENES = (22, 43, 104)  # of the validation split, chosen for their looks


def main() -> None:
    """Write docs/toytown.png: three scenes, and below each what its annotations say."""
    val = ToyTown("val")
    images, targets = zip(*(val[i] for i in SCENES), strict=True)
    axes = image_grid([*images, *images], columns=len(SCENES))
    for ax, target in zip(axes[len(SCENES) :], targets, strict=True):
        draw_objects(ax, target, val.classes)
    axes[0].get_figure().savefig(PROJECT_FOLDER / "docs" / "toytown.png", dpi=100)


if __name__ == "__main__":
    main()
