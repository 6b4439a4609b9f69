"""``minircnn data``, and the options by which other commands are told which images to use: Toy Town, or the user's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.options import JsonFile, RefusedError, as_command, echo
from minircnn.cli.outputs import Output, check_outputs
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER

if TYPE_CHECKING:
    from minircnn.datasets.checking import Report

TOYTOWN = "toytown"
HELD_OUT = ("val", "test")  # the parts of Toy Town that nothing learns from
ALL = "all"  # a split: every image of a data set that has no splits of its own
PAPER_PROPOSALS = 2000  # of selective search for a photograph, as in R-CNN's paper; scenes of Toy Town are small
MOST_NAMES = 20  # of more objects in an image the names would hide the objects
_MOST = 8  # names that a message lists

# The names are those of minircnn.datasets.named, which cannot be asked without waiting for PyTorch.
DataName = Annotated[
    str,
    typer.Option("--data", metavar="NAME", help="toytown; or, with --root, coco, voc, pennfudan or nuclei."),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the data set lies: for coco the folder of the images, for voc such as VOCdevkit/VOC2007.",
    ),
]
AnnotationsFile = Annotated[
    Path | None, typer.Option("--annotations", metavar="FILE", help="For coco: the JSON file about the images.")
]
_SPLITS = "Which images. voc has lists of its own; of coco, pennfudan and nuclei every fifth is for test, or all."
SplitToLearnFrom = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help=_SPLITS, show_default="train; of voc trainval")
]
SplitToMeasure = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help=f"{_SPLITS} Of Toy Town val or test.", show_default="test")
]
DropInvalid = Annotated[
    bool, typer.Option("--drop-invalid", help="Leave invalid annotations out, and say how many, rather than refuse.")
]
FirstImages = Annotated[
    int | None, typer.Option("--images", min=1, metavar="N", help="The first N images.", show_default="all of them")
]


@dataclass(frozen=True)
class Chosen:
    """A data set, or the part of it that was asked for."""

    data: Any  # yields (image, target)
    title: str  # what it is called in a sentence
    count: int  # how many of its images to take
    in_memory: bool = False

    def samples(self) -> Any:  # noqa: ANN401 - a sequence of pairs
        """The pairs: Toy Town's in memory, others read when they are looked at."""
        from torch.utils.data import Subset

        if self.in_memory:
            return [self.data[index] for index in range(self.count)]
        return Subset(self.data, range(self.count))


@dataclass(frozen=True)
class DataOptions:
    """What the user said about images."""

    name: str = TOYTOWN
    root: Path | None = None
    annotations: Path | None = None
    split: str | None = None  # None for what suits the command
    classes: Sequence[str] | None = None  # perhaps several in one, with commas between them; None or nothing for all
    drop_invalid: bool = False

    def files(self, *, to_learn: bool) -> list[Path]:
        """The files and folders that will be read, after a look at what can be refused without PyTorch.

        Raises:
            RefusedError: There is no such data set, or this part of Toy Town is for the other purpose.
            FileNotFoundError: There is no such folder or file.
        """
        if self.name == TOYTOWN and to_learn and self.split not in (None, "train"):
            raise RefusedError(f"--split {self.split}: this part of Toy Town is to measure with; learn from train")
        if self.name == TOYTOWN and not to_learn and self.split not in (None, *HELD_OUT):
            raise RefusedError(
                f"--split {self.split}: of Toy Town only {' and '.join(HELD_OUT)} are to measure with; from train the "
                "detectors have learned"
            )
        with _errors_of_options():
            return files_of_data(self.name, self.root, self.annotations)

    @property
    def class_names(self) -> list[str] | None:
        """The classes one by one."""
        names = [name.strip() for words in self.classes or () for name in words.split(",")]
        return names or None

    def max_proposals(self, wanted: int | None) -> int | None:
        """How many proposals of an image to take: what the user wants; None for the default of Toy Town."""
        return PAPER_PROPOSALS if wanted is None and self.name != TOYTOWN else wanted

    def words(self) -> dict[str, Any]:
        """What to say to get the same images, for :func:`minircnn.cli.options.as_command`."""
        return {
            "data": None if self.name == TOYTOWN else self.name,
            "root": self.root,
            "annotations": self.annotations,
            "split": self.split,
            "classes": self.class_names and ",".join(self.class_names),
            "drop_invalid": self.drop_invalid,
        }

    def to_learn_from(self, images: int | None, masks: bool) -> Chosen:
        """What to train with, its annotations read and checked.

        Raises:
            RefusedError: There is no such part of the data set.
            DatasetError: It has a defect, or no object to learn from.
        """
        chosen = self._choose(self._split_to_learn_from(), images, masks)
        from minircnn.targets import check_any_object

        of_classes = f", classes {listed(chosen.data.classes[1:])}" if self.class_names else ""
        check_any_object(map(chosen.data.load_target, range(chosen.count)), chosen.title + of_classes)
        return chosen

    def to_look_at(self, most: int, masks: bool) -> Chosen:
        """The first images that a training may look at on its way, without having learned from them; else refused."""
        if self.name != TOYTOWN and (self.name, self.split) != ("voc", "train"):
            advice = "give --split train, or " if self.name == "voc" else ""
            raise RefusedError(
                f"--evaluate-every: {self.name} has no images that are neither for training nor for testing; {advice}"
                "leave it out, and measure afterwards with `minircnn evaluate`"
            )
        return self._choose("val", None, masks, most)

    def to_measure(self, images: int | None, masks: bool) -> Chosen:
        """What to evaluate with; for errors see :meth:`to_learn_from`."""
        return self._choose(self.split or "test", images, masks)

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

    def _choose(self, split: str, images: int | None, masks: bool, most: int | None = None) -> Chosen:
        data, title = self._open(split, masks), f"{self.name}'s {split} split"
        if self.name == TOYTOWN:
            title = f"Toy Town's {split} split"
        elif split == ALL:
            title = f"all of {self.name}"
        if not len(data):
            raise RefusedError(f"{title} holds no images")
        if images is not None and images > len(data):
            raise RefusedError(f"--images {images}: {title} has only {len(data)}")
        count = min(images or len(data), most or len(data))
        if self.name != TOYTOWN:
            self._tell(data, count)
        return Chosen(data, title, count, self.name == TOYTOWN)

    def _open(self, split: str, masks: bool) -> Any:  # noqa: ANN401 - a data set
        from minircnn.datasets.named import open_data

        by_id = self.name not in (TOYTOWN, "voc")
        with _errors_of_options():
            return open_data(
                self.name,
                self.root,
                self.annotations,
                split=None if by_id and split == ALL else split,
                classes=self.class_names,
                masks=masks,
                drop_invalid=self.drop_invalid,
            )

    def _tell(self, data: Any, count: int) -> None:  # noqa: ANN401
        """Say what is odd in a data set and what was left out of it, after a look at the head of each image.

        Raises:
            DatasetError: An image cannot be used, which otherwise would end a training in its midst.
        """
        from minircnn.datasets.images import orientation_note
        from minircnn.datasets.named import grouped

        turned = [orientation_note(data.image_path(index)) for index in range(count) if data.image_size(index)]
        say(*grouped([*data.notes, *data.odd, *filter(None, turned)]))
        if self.drop_invalid:
            dropped = list(data.dropped)
            if hasattr(data, "read_objects"):  # its masks are files, which are read only now
                dropped += [problem for index in range(count) for problem in data.read_objects(index)[1]]
            left_out = getattr(data, "left_out", len(dropped))
            say(f"{_counted(left_out, 'annotation')} left out", *(f"  {line}" for line in grouped(dropped)))


def say(*lines: str) -> None:
    """Print lines, of several processes only in the main one."""
    from minircnn.training import is_main

    if is_main():
        echo(*lines)


def files_of_data(name: str, root: Path | None, annotations: Path | None) -> list[Path]:
    """What is read of a data set; for arguments and errors see :func:`minircnn.datasets.named.check_places`."""
    from minircnn.datasets.named import check_places

    check_places(name, root, annotations)
    if name == TOYTOWN:
        return [TOYTOWN_FOLDER, *TOYTOWN_FOLDER.glob("*.json")]
    return [path for path in (root, annotations) if path]


def listed(names: Sequence[str]) -> str:
    """Names with commas between them, of many the first.

    >>> listed(["cat", "dog"]), listed("abcdefghijk")
    ('cat, dog', 'a, b, c, d, e, f, g, h and 3 more')
    """
    return ", ".join(names[:_MOST]) + (f" and {len(names) - _MOST} more" if len(names) > _MOST else "")


@contextmanager
def _errors_of_options() -> Iterator[None]:
    """Errors about an argument, with whose name they begin, become errors about the option of that name."""
    from minircnn.datasets.named import DatasetError

    try:
        yield
    except DatasetError as error:
        if str(error).partition(":")[0].split(" ")[0] in ("data", "root", "annotations", "split", "classes"):
            raise RefusedError(f"--{error}") from error
        raise


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


# ------------------------------------------------------------------------------------------------------- minircnn data

app = typer.Typer(help="Look at a data set, or find a public one.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="toytown, coco, voc, pennfudan or nuclei.")]


@app.command()
def check(
    name: Name,
    root: Root = None,
    annotations: AnnotationsFile = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help=_SPLITS, show_default="all; trainval of voc, train of toytown")
    ] = None,
    masks: Annotated[
        bool | None,
        typer.Option("--masks/--no-masks", help="Whether to look at masks.", show_default="where there are any"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw some images with their objects here.")] = None,
    images: Annotated[int, typer.Option(min=1, max=60, metavar="N", help="How many, evenly through the set.")] = 12,
    json_file: JsonFile = None,
) -> None:
    """Open every image and every object of a data set, count them, and list every defect; exit status 1 if any."""
    if out and out.suffix.lower() != ".png":
        raise RefusedError(f"--out {out}: images are drawn as PNG; let the name end in .png")
    outputs = [Output(option, path) for option, path in (("--out", out), ("--json", json_file)) if path]
    check_outputs(outputs, files_of_data(name, root, annotations))
    from tqdm import tqdm

    from minircnn.datasets.checking import Report, examine, open_to_check
    from minircnn.datasets.named import grouped
    from minircnn.files import write_atomically, write_json

    data, problems = open_to_check(name, root, annotations, split=split, masks=masks)
    if data is None:
        report = Report([], problems=problems)
    else:
        report = examine(data, progress=lambda them: tqdm(them, unit="image", disable=None, leave=False))
        report.problems[:0] = problems
        echo(*_counts(report, f"{name}{f', {split}' if split else ''}"))
        echo(*data.notes)
    echo(*grouped(report.problems))
    if out and report.readable:
        write_atomically(out, _draw(data, report.readable, images))
        echo(f"written to {out}")
    if json_file:
        numbers = asdict(report)
        del numbers["readable"]
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
        (h, w), (height, width) = report.smallest, report.largest
        sizes = f"{h} × {w}" if (h, w) == (height, width) else f"from {h} × {w} to {height} × {width}"
        yield f"height × width: {sizes} pixels"
    longest = max(map(len, report.classes[1:]), default=0)
    for name, (objects, shown) in report.per_class.items():
        yield f"  {name:<{longest}}  {objects:>7} objects in {shown:>6} images"


def _draw(data: Any, readable: Sequence[int], most: int) -> bytes:  # noqa: ANN401 - a data set
    """A PNG of images from all over the data set, with their objects; of very many objects only the number."""
    from minircnn.plotting import GRID_SIDE, draw_png, make_drawing

    count = min(most, len(readable))
    drawings, titles = [], []
    for index in (readable[place * len(readable) // count] for place in range(count)):  # shrunk one by one
        path, target = data.image_path(index), data.load_target(index)
        drawings.append(make_drawing(data.load_image(index), target, GRID_SIDE))
        titles.append(f"{path.name}\n{_counted(len(target['labels']), 'object')}")
    few = all(len(drawing.found["labels"]) <= MOST_NAMES for drawing in drawings) and len(data.classes) > 2
    return draw_png(drawings, data.classes, titles, names=few)


SOURCES = {
    "voc": (
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar (460 MB), "
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar (451 MB), "
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar (2.0 GB)",
        "none stated for the annotations; the images are from Flickr, under its terms of use",
        'for file in VOC*.tar; do tar -xf "$file"; done',
        "voc --root VOCdevkit/VOC2007",
    ),
    "pennfudan": (
        "https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip (54 MB)",
        "none stated; cite the paper",
        "unzip -q PennFudanPed.zip",
        "pennfudan --root PennFudanPed",
    ),
    "nuclei": (
        "https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip (about 80 MB)",
        "CC0, public domain",
        "unzip -q stage1_train.zip -d stage1_train",
        "nuclei --root stage1_train",
    ),
    "coco": (
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip (241 MB), "
        "http://images.cocodataset.org/zips/val2017.zip (0.8 GB), "
        "http://images.cocodataset.org/zips/train2017.zip (19 GB)",
        "annotations CC BY 4.0; the images are from Flickr, each under the license that the annotations name",
        "unzip -q '*2017.zip'",
        "coco --root val2017 --annotations annotations/instances_val2017.json",
    ),
}
"""Addresses with sizes, license, how to unpack, how to check. docs/data_sets.md says the same; a test compares both."""


@app.command()
def fetch(name: Name) -> None:
    """Say where a public data set is, its size and license, and how to unpack it."""
    if name == TOYTOWN:
        echo("toytown: comes with the project; there is nothing to fetch")
        return
    if name not in SOURCES:
        raise RefusedError(f"there is no {name!r} to fetch; there are {', '.join(SOURCES)}")
    where, license, unpack, options = SOURCES[name]
    echo(f"where: {where}", f"license: {license}")
    echo(f"unpack: `{unpack}`; then `minircnn data check {options}` looks at it")
