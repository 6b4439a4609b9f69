"""Which pictures a command uses: Toy Town, or the user's own. The options, what they mean, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from minircnn.cli.class_names import listed
from minircnn.cli.errors import RefusedError
from minircnn.cli.options import as_command, check_count, given, new_weights
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER

TOYTOWN = "toytown"
HELD_OUT = ("val", "test")  # the parts of Toy Town that nothing learns from
ALL = "all"  # a split: every picture of a data set that has no splits of its own
PAPER_PROPOSALS = 2000  # of selective search for a photograph, as in R-CNN's paper; scenes of Toy Town are small

# The names are those of minircnn.datasets.named, which cannot be asked without waiting for PyTorch.
DataName = Annotated[
    str,
    typer.Option("--data", metavar="NAME", help="toytown; or, with --root, coco, voc, pennfudan or nuclei."),
]
Root = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the data set lies: for coco the folder of the pictures, for voc such as VOCdevkit/VOC2007.",
    ),
]
AnnotationsFile = Annotated[
    Path | None, typer.Option("--annotations", metavar="FILE", help="For coco: the JSON file about the pictures.")
]
_SPLITS = "Which pictures. voc has lists of its own; of coco, pennfudan and nuclei every fifth is for test, or all."
SplitToLearnFrom = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help=_SPLITS, show_default="train; of voc trainval")
]
SplitToMeasure = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help=f"{_SPLITS} Of Toy Town val or test.", show_default="test")
]
ClassNames = Annotated[
    list[str] | None,
    typer.Option(
        "--classes", metavar="NAMES", help="Only these, with commas between them.", show_default="all of them"
    ),
]
DropInvalid = Annotated[
    bool, typer.Option("--drop-invalid", help="Leave invalid annotations out, and say how many, rather than refuse.")
]


@dataclass(frozen=True)
class DataOptions:
    """What the user said about pictures.

    Attributes:
        name: of the data set.
        root: where it lies.
        annotations: the file that describes it.
        split: which part of it; None for what suits the command.
        classes: names, perhaps several in one with commas between them; None or nothing for all.
        drop_invalid: whether to leave invalid annotations out.
    """

    name: str = TOYTOWN
    root: Path | None = None
    annotations: Path | None = None
    split: str | None = None
    classes: Sequence[str] | None = None
    drop_invalid: bool = False

    @classmethod
    def of(cls, options: dict[str, Any]) -> DataOptions:
        """From the options of a command, by name."""
        return cls(*(options[key] for key in ("data", "root", "annotations", "split", "classes", "drop_invalid")))

    def files(self, *, to_learn: bool) -> list[Path]:
        """The files and folders that will be read, after a look at what can be refused without PyTorch.

        Raises:
            RefusedError: there is no such data set, or this part of Toy Town is for the other purpose.
            FileNotFoundError: there is no such folder or file.
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
    def is_plain_toytown(self) -> bool:
        """Whether this is what the weights that come with the project are made with."""
        return self.name == TOYTOWN and self.class_names is None

    @property
    def class_names(self) -> list[str] | None:
        """The classes one by one."""
        names = [name.strip() for words in self.classes or () for name in words.split(",")]
        return names or None

    def max_proposals(self, wanted: int | None) -> int | None:
        """How many proposals of a picture to take: what the user wants; None for the default of Toy Town."""
        return PAPER_PROPOSALS if wanted is None and self.name != TOYTOWN else wanted

    def words(self) -> dict[str, str]:
        """What to say to get the same images."""
        words = given(
            data=None if self.name == TOYTOWN else self.name,
            root=self.root,
            annotations=self.annotations,
            split=self.split,
            classes=self.class_names and ",".join(self.class_names),
            drop_invalid=self.drop_invalid or None,
        )
        return {name: word if word is True else str(word) for name, word in words.items()}

    def noted(self) -> dict[str, str]:
        """The same to be noted beside weights: of folders only the names."""
        names = given(
            root=self.root and (self.root.resolve().name or "/"), annotations=self.annotations and self.annotations.name
        )
        return {**self.words(), **names}


def files_of_data(name: str, root: Path | None, annotations: Path | None) -> list[Path]:
    """What is read of a data set; for arguments and errors see :func:`minircnn.datasets.named.check_places`."""
    from minircnn.datasets.named import check_places

    check_places(name, root, annotations)
    if name == TOYTOWN:
        return [TOYTOWN_FOLDER, *TOYTOWN_FOLDER.glob("*.json")]
    return [path for path in (root, annotations) if path]


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


@dataclass(frozen=True)
class Chosen:
    """A data set, or the part of it that was asked for.

    Attributes:
        options: how it was asked for.
        data: yields ``(image, target)``.
        split: its part.
        count: how many of its pictures to take.
    """

    options: DataOptions
    data: Any
    split: str
    count: int

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return _title(self.options, self.split)

    def samples(self) -> Any:  # noqa: ANN401 - a sequence of pairs
        """The pairs: Toy Town's in memory, others read when they are looked at."""
        from torch.utils.data import Subset

        if self.options.name == TOYTOWN:
            return [self.data[index] for index in range(self.count)]
        return Subset(self.data, range(self.count))


def pictures_to_learn_from(options: DataOptions, pictures: int | None, masks: bool) -> Chosen:
    """What to train with, its annotations read and checked.

    Raises:
        RefusedError: there is no such data set, or no such part of it.
        DatasetError: it has a defect.
    """
    chosen = _choose(options, split_to_learn_from(options), pictures, masks)
    from minircnn.targets import check_any_object

    of_classes = f", classes {listed(chosen.data.classes[1:])}" if options.class_names else ""
    check_any_object(map(chosen.data.load_target, range(chosen.count)), chosen.title + of_classes)
    return chosen


def split_to_learn_from(options: DataOptions) -> str:
    """The part of a data set that training takes."""
    return options.split or ("trainval" if options.name == "voc" else "train")


def how_to_measure(command: str, weights: Path, options: DataOptions, masks: bool) -> str:
    """What to say after a training to measure what came out, on images that it has not seen if there are any.

    Args:
        command: the detector's name.
        weights: what was written.
        options: what it has learned from.
        masks: whether it learned from masks.
    """
    words: dict[str, Any] = {} if weights.resolve() == DETECTOR_WEIGHTS[command] else {"weights": weights}
    remark = ""
    if options.name != TOYTOWN:
        learned = split_to_learn_from(options)
        unseen = {"train": ["test", "val"], "trainval": ["test"], "val": ["test"]}.get(learned, [])
        split = next((split for split in unseen if _has_images(options, split, masks)), None)
        words, remark = (
            {**words, "split": split or learned},
            "" if split else ", on the images that it has learned from",
        )
    return f"`{as_command(f'evaluate {command}', {**options.words(), **words})}` tells how good it is{remark}"


def _has_images(options: DataOptions, split: str, masks: bool) -> bool:
    try:
        return len(_open(options, split, masks)) > 0
    except (RefusedError, ValueError, OSError):
        return False


def validation_pictures(options: DataOptions, most: int, masks: bool) -> Chosen:
    """The first pictures that a training may look at on its way, without having learned from them.

    Raises:
        RefusedError: there are none.
    """
    if options.name != TOYTOWN and (options.name, options.split) != ("voc", "train"):
        advice = "give --split train, or " if options.name == "voc" else ""
        raise RefusedError(
            f"--evaluate-every: {options.name} has no pictures that are neither for training nor for testing; {advice}"
            "leave it out, and measure afterwards with `minircnn evaluate`"
        )
    chosen = _choose(options, "val", None, masks)
    return replace(chosen, count=min(most, chosen.count))


def pictures_to_measure(options: DataOptions, pictures: int | None, masks: bool) -> Chosen:
    """What to evaluate with; for errors see :func:`pictures_to_learn_from`."""
    return _choose(options, options.split or "test", pictures, masks)


def _choose(options: DataOptions, split: str, pictures: int | None, masks: bool) -> Chosen:
    data = _open(options, split, masks)
    if not len(data):
        raise RefusedError(f"{_title(options, split)} holds no pictures")
    chosen = Chosen(options, data, split, check_count(pictures, data, _title(options, split)))
    if options.name != TOYTOWN:
        _tell(chosen)
    return chosen


def _tell(chosen: Chosen) -> None:
    """Says what is odd in a data set and what was left out of it, after a look at the head of each image.

    Raises:
        DatasetError: an image cannot be used, which otherwise would end a training in its midst.
    """
    from minircnn.cli.starting import say
    from minircnn.datasets.images import orientation_note
    from minircnn.datasets.named import grouped

    data, indices = chosen.data, list(range(chosen.count))
    turned = [orientation_note(data.image_path(index)) for index in indices if data.image_size(index)]
    while hasattr(data, "whole"):
        data, indices = data.whole, [data.indices[index] for index in indices]
    for line in grouped([*getattr(data, "notes", ()), *getattr(data, "odd", ()), *filter(None, turned)]):
        say(line)
    if chosen.options.drop_invalid:
        dropped = list(data.dropped)
        if hasattr(data, "read_objects"):  # its masks are files, which are read only now
            dropped += [problem for index in indices for problem in data.read_objects(index)[1]]
        count = getattr(data, "left_out", len(dropped))
        say(f"{count or 'no'} annotation{'s' * (count != 1)} left out", *(f"  {line}" for line in grouped(dropped)))


def _open(options: DataOptions, split: str, masks: bool) -> Any:  # noqa: ANN401 - a data set
    from minircnn.datasets.named import open_data

    by_id = options.name not in (TOYTOWN, "voc")
    with _errors_of_options():
        return open_data(
            options.name,
            options.root,
            options.annotations,
            split=None if by_id and split == ALL else split,
            classes=options.class_names,
            masks=masks,
            drop_invalid=options.drop_invalid,
        )


def _title(options: DataOptions, split: str) -> str:
    if options.name == TOYTOWN:
        return f"Toy Town's {split} split"
    return f"all of {options.name}" if split == ALL else f"{options.name}'s {split} split"


def weights_to_write(out: Path | None, default: Path, options: DataOptions) -> Path:
    """Where training will write, checked before hours of work go into it.

    Raises:
        RefusedError: it cannot be written, or would replace what comes with the project by something else.
    """
    if not options.is_plain_toytown:
        if out is None:
            raise RefusedError("--out FILE: say where to write; the files of data/weights are those of Toy Town")
        if out.resolve().parent == default.resolve().parent:
            raise RefusedError(
                f"--out {out}: this folder holds the weights that come with the project, trained on Toy Town; name "
                "another one"
            )
    return new_weights(out, default)
