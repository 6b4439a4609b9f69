"""``minircnn data check``, and the options by which commands are told which images to use: Toy Town, or the user's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.common import JsonFile, RefusedError, as_command, check_outputs, echo, option
from minircnn.datasets.named import DATA_NAMES, EVERY, DatasetError, check_places, grouped, open_data
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    from minircnn.datasets.checking import Report
    from minircnn.datasets.images import ImageDataset
    from minircnn.transforms import Transform

TOYTOWN = "toytown"
LEARN, MEASURE, CHECK = ("train",), ("val", "test"), ("train", "val", "test")  # parts of Toy Town, by what they are for
ALL = "all"  # a split: every image of a data set that has no splits of its own
PAPER_PROPOSALS = 2000  # of selective search for a photograph, as in R-CNN's paper; scenes of Toy Town are small
MOST_NAMES = 20  # of more objects in an image the names would hide the objects
_MOST = 8  # names that a message lists

DataName = option(str, f"{TOYTOWN}; or, with --root, {', '.join(DATA_NAMES[1:])}.", "--data")
Root = option(Path, "Of coco the folder of the images, of voc such as VOCdevkit/VOC2007.", metavar="FOLDER")
AnnotationsFile = option(Path, "Of coco the JSON file about the images.", "--annotations")
Split = option(
    str,
    "Which images. voc has lists of its own; of coco, pennfudan and nuclei every fifth is for test, or all.",
    default="test to measure; else train, of voc trainval",
)
DropInvalid = option(bool, "Leave invalid annotations out, and say how many, rather than refuse.", "--drop-invalid")
FirstImages = option(int, "The first N images.", "--images", default="all of them", min=1)
Masks = option(bool, "Whether to look at masks.", "--masks/--no-masks", default="where there are any")
Drawing = option(Path, "Draw some images with their objects here.", "--out", metavar="PNG")
HowMany = option(int, "How many, evenly through the set.", "--images", min=1, max=60)


@dataclass(frozen=True)
class DataOptions:
    """What the user said about images."""

    name: str = TOYTOWN
    root: Path | None = None
    annotations: Path | None = None
    split: str | None = None  # None for what suits the command
    classes: Sequence[str] | None = None  # perhaps several in one, with commas between them; None or nothing for all
    drop_invalid: bool = False

    def check(self, parts: Sequence[str]) -> None:
        """Refuse, without PyTorch, data sets that are not there, and parts of Toy Town other than these."""
        if self.name == TOYTOWN and self.split not in (None, *parts):
            rule = "detectors learn from train, and are measured on what they have not seen"
            one = f"this command takes only {' or '.join(parts)} of Toy Town"
            raise RefusedError(f"--split {self.split}: {one}: {rule}")
        with _errors_of_options():
            check_places(self.name, self.root, self.annotations)

    @property
    def class_names(self) -> list[str] | None:
        """The classes one by one."""
        return [name.strip() for words in self.classes or () for name in words.split(",")] or None

    def max_proposals(self, wanted: int | None) -> int | None:
        """How many proposals of an image to take: what the user wants; None for the default of Toy Town."""
        return PAPER_PROPOSALS if wanted is None and self.name != TOYTOWN else wanted

    def words(self) -> dict[str, Any]:
        """What to say to get the same images, for :func:`minircnn.cli.common.as_command`."""
        words = {"data": None if self.name == TOYTOWN else self.name, **vars(self), "name": None}
        return {**words, "classes": self.class_names and ",".join(self.class_names)}

    def to_learn_from(self, images: int | None, masks: bool) -> ImageDataset:
        """What to train with; refused if there is no object to learn from, or for a defect of the data set."""
        data, title = self._choose(self._split_to_learn_from(), images, masks)
        from minircnn.training.batches import check_any_object

        of_classes = f", classes {listed(data.classes[1:])}" if self.class_names else ""
        targets = (data.load_target(index, encoded=True) for index in range(len(data)))
        check_any_object(targets, title + of_classes)
        return data

    def held_out(self, data: ImageDataset, most: int, masks: bool) -> tuple[ImageDataset, ImageDataset]:
        """What to train with, and the first images that a training may look at without learning from them.

        These are a split for validation, or else every fifth image of those to learn from.
        """
        if self.name == TOYTOWN or (self.name, self.split) == ("voc", "train"):
            return data, self._choose("val", None, masks, most)[0]
        held = range(EVERY - 1, len(data), EVERY)
        if not held:
            remedy = "leave it out, and measure afterwards with `minircnn evaluate`"
            raise RefusedError(f"--evaluate-every: of {len(data)} images none can be spared; {remedy}")
        say(f"{len(held)} of the {len(data)} images are for validation: nothing is learned from them")
        learned = [index for index in range(len(data)) if index not in held]
        return data.part(learned), data.part(held[:most])

    def to_measure(self, images: int | None, masks: bool) -> tuple[ImageDataset, str]:
        """What to evaluate with, and its title."""
        return self._choose(self.split or "test", images, masks)

    def in_memory(self, data: ImageDataset, largest: Transform | None = None) -> Any:  # noqa: ANN401
        """A sequence of pairs: Toy Town's in memory, others kept when they are first looked at, none much too large."""
        from minircnn.training import KeptSamples

        return list(data) if self.name == TOYTOWN else KeptSamples(data, len(data.classes), largest=largest)

    def advice(self, detector: str, weights: Path) -> str:
        """How to measure what came out of a training, on images that it has not seen if there are any."""
        words: dict[str, Any] = {} if weights.resolve() == DETECTOR_WEIGHTS[detector] else {"weights": weights}
        learned, remark = self._split_to_learn_from(), ""
        if self.name != TOYTOWN:
            words["split"] = {("voc", "train"): "val"}.get((self.name, learned), "test")
            if learned in ("test", ALL):
                words["split"], remark = learned, ", on the images that it has learned from"
        return f"`{as_command(f'evaluate {detector}', {**self.words(), **words})}` tells how good it is{remark}"

    def _split_to_learn_from(self) -> str:
        return self.split or ("trainval" if self.name == "voc" else "train")

    def _choose(self, split: str, images: int | None, masks: bool, most: int | None = None) -> tuple[ImageDataset, str]:
        """The first images of a split, and what it is called in a sentence."""
        whole = split == ALL and self.name not in (TOYTOWN, "voc")
        title = f"all of {self.name}" if whole else f"{self.name.replace(TOYTOWN, 'Toy Town')}'s {split} split"
        options = {"split": None if whole else split, "classes": self.class_names, "drop_invalid": self.drop_invalid}
        with _errors_of_options():
            data = open_data(self.name, self.root, self.annotations, masks=masks, **options)
        if not len(data):
            raise RefusedError(f"{title} holds no images")
        if images is not None and images > len(data):
            raise RefusedError(f"--images {images}: {title} has only {len(data)}")
        data = data.part(range(min(images or len(data), most or len(data))))
        if self.name != TOYTOWN:
            self._tell(data)
        return data, title

    def _tell(self, data: ImageDataset) -> None:
        """Say what is odd in a data set and what was left out of it.

        The head of each image is read: one that cannot be used would otherwise end a training in its midst.
        """
        from minircnn.datasets.images import orientation_note

        indices = range(len(data))
        turned = [orientation_note(data.image_path(index)) for index in indices if data.image_size(index)]
        say(*grouped([*data.notes, *data.odd, *filter(None, turned)]))
        if self.drop_invalid:
            dropped = [*data.dropped, *(problem for index in indices for problem in data.find_problems(index))]
            left_out = getattr(data, "left_out", len(dropped))
            say(f"{_counted(left_out, 'annotation')} left out", *(f"  {line}" for line in grouped(dropped)))


def say(*lines: str) -> None:
    """Print lines, of several processes only in the main one."""
    from minircnn.training import is_main

    if is_main():
        echo(*lines)


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, of many the first.

    >>> listed(["cat", "dog"]), listed("abcdefghijk")
    ('cat, dog', 'a, b, c, d, e, f, g, h and 3 more')
    """
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")


@contextmanager
def _errors_of_options() -> Iterator[None]:
    """Errors about an argument, with whose name they begin, become errors about the option of that name."""
    try:
        yield
    except DatasetError as error:
        if re.match("(data|root|annotations|split|classes)[: ]", str(error)):
            raise RefusedError(f"--{error}") from error
        raise


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


app = typer.Typer(help="Look at a data set.", no_args_is_help=True)


@app.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"{', '.join(DATA_NAMES)}.")],
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: Split = None,
    masks: Masks = None,
    out: Drawing = None,
    images: HowMany = 12,
    json_file: JsonFile = None,
) -> None:
    """Open every image and every object of a data set, count them, and list every defect; exit status 1 if any."""
    if out and out.suffix.lower() != ".png":
        raise RefusedError(f"--out {out}: images are drawn as PNG; let the name end in .png")
    check_outputs([("--out", out), ("--json", json_file)])
    DataOptions(name, root, annotations, split).check(CHECK)
    from tqdm import tqdm

    from minircnn.datasets.checking import Report, examine, open_to_check
    from minircnn.files import write_atomically, write_json

    data, problems = open_to_check(name, root, annotations, split=split, masks=masks)
    report = Report([])
    if data is not None:
        report = examine(data, progress=lambda them: tqdm(them, unit="image", disable=None, leave=False))
        echo(*_counts(report, f"{name}{f', {split}' if split else ''}"), *data.notes, *_for_training(report))
    report.problems[:0] = problems
    echo(*grouped(report.problems))
    if out and report.readable:
        write_atomically(out, _draw(data, report.readable, images))
        echo(f"written to {out}")
    if json_file:
        numbers = {key: value for key, value in vars(report).items() if key not in ("readable", "sizes", "boxes")}
        write_json(json_file, {"data": name, "split": split, "masks": masks, **numbers})
        echo(f"written to {json_file}")
    echo(_counted(len(report.problems), "defect"))
    if report.problems:
        raise typer.Exit(1)


def _counts(report: Report, title: str) -> Iterator[str]:
    crowds = f", {report.crowds} of them crowds or difficult" if report.crowds else ""
    images = f"{_counted(report.images, 'image')} ({report.empty} without objects)"
    yield f"{title}: {images}, {_counted(report.objects, 'object')}{crowds}"
    if report.smallest:
        smallest, largest = (f"{height} × {width}" for height, width in (report.smallest, report.largest))
        yield f"height × width: {smallest if smallest == largest else f'from {smallest} to {largest}'} pixels"
    longest = max(map(len, report.classes[1:]), default=0)
    for name, (objects, shown) in report.per_class.items():
        yield f"  {name:<{longest}}  {objects:>7} objects in {shown:>6} images"


def _for_training(report: Report) -> Iterator[str]:
    """What `minircnn train` would choose for these images, and why."""
    from minircnn.training import Measured, anchor_recall, settings_for

    found = Measured(report.sizes, report.boxes)
    if found.most_objects:
        chosen = settings_for(found)
        yield "what a training would choose, with a backbone of stride 8:"
        yield from (f"  {reason}" for reason in chosen.reasons)
        yield f"  an anchor overlaps {100 * anchor_recall(found, chosen):.1f} % of the objects by half or more"


def _draw(data: ImageDataset, readable: Sequence[int], most: int) -> bytes:
    """A PNG of images from all over the data set, with their objects; of very many objects only the number."""
    from minircnn.plotting import GRID_SIDE, draw_png, make_drawing

    count = min(most, len(readable))
    drawings, titles = [], []
    for index in (readable[place * len(readable) // count] for place in range(count)):  # shrunk one by one
        target = data.load_target(index)
        drawings.append(make_drawing(data.load_image(index), target, GRID_SIDE))
        titles.append(f"{data.image_path(index).name}\n{_counted(len(target['labels']), 'object')}")
    few = all(len(drawing.found["labels"]) <= MOST_NAMES for drawing in drawings) and len(data.classes) > 2
    return draw_png(drawings, data.classes, titles, names=few)
