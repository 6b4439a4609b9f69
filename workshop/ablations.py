"""Detectors that differ in one thing, trained and measured alike: the comparisons of the papers, on Toy Town.

    python -m workshop.ablations rcnn          # layers, fine-tuning, box regression: table 2 of R-CNN
    python -m workshop.ablations fast_rcnn     # joint training, softmax against SVMs: tables 6 and 8 of Fast R-CNN
    python -m workshop.ablations faster_rcnn   # joint or alternating training, and anchors: table 8 of Faster R-CNN
    python -m workshop.ablations mask_rcnn     # poolings, and classes that compete: tables 2b to 2d of Mask R-CNN
    python -m workshop.ablations fine_tuning --root …/stage1_train
    python -m workshop.ablations rcnn_2014 --root … --annotations … --network …/alexnet_conv.npz

Each writes one file of data/results, which notebooks read. The first four differ in their lists of detectors alone; all
detectors of one seed see the same training and test images.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.alexnet import LAYERS, SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS, load_alexnet
from minircnn.boxes import decode_boxes, select_detections
from minircnn.course.ablations import MASK_SHORT, SHORT, anchors
from minircnn.datasets import ToyTown, open_data
from minircnn.evaluation import evaluate, proposal_recall
from minircnn.fast_rcnn import FastRCNN, RoIConfig
from minircnn.files import write_json
from minircnn.mask_rcnn import TOY_TOWN_MASK_HEADS, binary_masks
from minircnn.rcnn import (
    RCNN,
    RCNN_WEIGHTS,
    RCNNConfig,
    SVMSettings,
    far_from_class,
    load_rcnn,
    mine_hard_negatives,
    scale_to,
)
from minircnn.selective_search import stored_proposals
from minircnn.shipped import RESULTS_FOLDER
from minircnn.targets import Sample, in_crowd, single_objects
from minircnn.training import (
    FastRCNNTrainingSettings,
    JointTrainingSettings,
    LoopSettings,
    fit,
    joint_losses,
    train_alternating,
    train_fast_rcnn,
    train_faster_rcnn,
    train_mask_rcnn,
)
from minircnn.transforms import resize_boxes
from workshop import fine_tuning

Detect = Callable[[Tensor, Tensor | None], dict[str, Tensor]]
"""Detections in an image, with its proposals if the detector needs some."""


@dataclass(frozen=True)
class Data:
    """Images with their targets, and their proposals if detectors need some."""

    samples: Sequence[Sample]
    proposals: Sequence[Tensor | None]
    classes: Sequence[str]


@dataclass(frozen=True)
class Detector:
    """One row of a table, before it is measured."""

    labels: Mapping[str, Any]  # what it differs in
    detect: Detect  # finds objects
    # Gives the boxes `(P, 4)` of its own proposals, if their recall is part of the table
    propose: Callable[[Tensor], Tensor] | None = None


# ------------------------------------------------------------------------- the four lists of detectors


def rcnn(train: Data, settings: None = None) -> Iterator[Detector]:
    """SVMs on pool5, fc6 and fc7, before and after fine-tuning; the last one also with box regression."""
    for tuned, network in ((False, load_alexnet(SMALL_WEIGHTS)), (True, load_rcnn(RCNN_WEIGHTS).network)):
        for layer in LAYERS:
            model = RCNN(network, train.classes, RCNNConfig(svm_layer=layer))
            model.fit_svms(train.samples, train.proposals)
            labels = {"layer": layer, "fine_tuned": tuned, "box_regression": False}
            yield Detector(labels, _given(model, regress=False))
    model.fit_box_regressors(train.samples, train.proposals)
    yield Detector({**labels, "box_regression": True}, _given(model, regress=True))


def fast_rcnn(train: Data, settings: FastRCNNTrainingSettings) -> Iterator[Detector]:
    """Classes alone; both, boxes unused; first classes, then boxes (stage-wise); both; both, and SVMs for the classes.

    The boxes of the stage-wise one learn for a third of the iterations.
    """

    def trained(config: RoIConfig) -> FastRCNN:
        inputs = (load_alexnet(SMALL_WEIGHTS), train.samples, train.proposals, train.classes)
        return train_fast_rcnn(*inputs, settings, config=config)[0]

    def row(training: str, classifier: str, regress: bool, detect: Detect) -> Detector:
        return Detector({"training": training, "classifier": classifier, "box_regression": regress}, detect)

    classes_alone = trained(RoIConfig(box_loss_weight=0.0))
    yield row("classes", "softmax", False, _given(classes_alone, regress=False))
    joint = trained(RoIConfig())
    yield row("joint", "softmax", False, _given(joint, regress=False))
    yield row("stages", "softmax", True, _given(learn_boxes_alone(classes_alone, train, settings), regress=True))
    yield row("joint", "softmax", True, _given(joint, regress=True))
    yield row("joint", "SVM", True, with_svms(joint, train))


def faster_rcnn(train: Data, settings: JointTrainingSettings) -> Iterator[Detector]:
    """Joint; alternating, with as many batches in all and with twice as many; joint with fewer anchors."""
    twice = replace(settings, iterations=2 * settings.iterations)
    ways = [("joint", settings, (3, 3)), ("turns", settings, (3, 3)), ("turns", twice, (3, 3))]
    for training, its, kinds in ways + [("joint", settings, kinds) for kinds in ((1, 1), (1, 3), (3, 1))]:
        learn = train_faster_rcnn if training == "joint" else train_alternating
        model, _ = learn(load_alexnet(SMALL_WEIGHTS), train.samples, train.classes, its, rpn=anchors(*kinds))
        labels = {"training": training, "iterations": its.iterations, "scales": kinds[0], "ratios": kinds[1]}
        yield Detector(labels, _own(model), lambda image, model=model: model.propose([image])[0]["boxes"])


def mask_rcnn(train: Data, settings: JointTrainingSettings) -> Iterator[Detector]:
    """RoIPool, RoIWarp (rounded regions, interpolated) and RoIAlign at strides of 16 and 8 pixels.

    One more has a softmax over the classes of each pixel in place of a sigmoid for each class.
    """
    networks = {16: SMALL_STRIDE_16_WEIGHTS, 8: SMALL_WEIGHTS}
    ways = [(stride, pooling, "sigmoid") for stride in networks for pooling in ("pool", "warp", "align")]
    for stride, pooling, kind in [*ways, (8, "align", "softmax")]:
        network = load_alexnet(networks[stride])
        heads = replace(TOY_TOWN_MASK_HEADS, pool_size=network.config.pool5_size, pooling=pooling, mask_kind=kind)
        model, _ = train_mask_rcnn(network, train.samples, train.classes, settings, rpn=anchors(3, 3), heads=heads)
        yield Detector({"stride": stride, "pooling": pooling, "mask_kind": kind}, _own(model))


def _given(model: RCNN | FastRCNN, *, regress: bool) -> Detect:
    return lambda image, boxes: model.detect([image], [boxes], regress=regress)[0]


def _own(model: Any) -> Detect:  # noqa: ANN401 - Faster or Mask R-CNN
    return lambda image, _: model.detect([image])[0]


# ------------------------------------------------------------------------- the runner


@dataclass(frozen=True)
class Ablation:
    """One comparison."""

    detectors: Callable[[Data, Any], Iterator[Detector]]  # trains them, one after the other
    settings: JointTrainingSettings | None = None  # of the trainings; None where they have no seed
    seeds: int = 1  # how often all of it is done
    max_proposals: int | None = None  # of selective search; None for detectors that make their own
    masks: bool = False  # whether masks are learned and measured


ABLATIONS = {
    "rcnn": Ablation(rcnn, max_proposals=300),
    "fast_rcnn": Ablation(
        fast_rcnn,
        FastRCNNTrainingSettings(iterations=1500, color_jitter=0.3, scale_jitter=0.25),
        seeds=3,
        max_proposals=300,
    ),
    "faster_rcnn": Ablation(faster_rcnn, SHORT, seeds=2),
    "mask_rcnn": Ablation(mask_rcnn, MASK_SHORT, seeds=3, masks=True),
}


def read_data(split: str, count: int, ablation: Ablation) -> Data:
    """The first so many images of a split of Toy Town, or all, if there are fewer."""
    data = ToyTown(split, masks=ablation.masks)
    samples = [data[index] for index in range(min(count, len(data)))]
    proposals: Sequence[Tensor | None] = [None] * len(samples)
    if ablation.max_proposals:
        proposals = stored_proposals(samples, max_proposals=ablation.max_proposals, workers=-1)
    return Data(samples, proposals, data.classes)


def run(
    ablation: Ablation, train: Data, test: Data, seeds: int | None = None, report: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Train and measure every detector, for every seed: the rows of the table, averages in [0, 1].

    Each row says in what the detector differs, its figures (see :func:`measure`), and the seconds of a processor that
    its training took. ``report`` is told each row as soon as it is there.
    """
    rows = []
    for seed in range(seeds or ablation.seeds):
        settings = ablation.settings and replace(ablation.settings, seed=seed)
        start = process_time()
        for detector in ablation.detectors(train, settings):
            seconds = round(process_time() - start, 1)
            named = {"seed": seed, **detector.labels} if settings else {**detector.labels}
            rows.append({**named, **measure(detector, test, ablation.masks), "seconds": seconds})
            report(described(rows[-1]))
            start = process_time()
    return rows


@torch.no_grad()
def measure(detector: Detector, test: Data, masks: bool) -> dict[str, float]:
    """``ap``, ``ap50`` and ``ap75``, of boxes and masks if there are masks; the recall of own proposals at IoU 0.5."""
    targets = [target for _, target in test.samples]
    found = [detector.detect(image, boxes) for (image, _), boxes in zip(test.samples, test.proposals, strict=True)]
    found = [binary_masks(one) for one in found] if masks else found
    figures = {}
    for kind in ("boxes", "masks") if masks else ("boxes",):
        result = evaluate(found, targets, classes=test.classes, kind=kind)
        prefix = {"boxes": "box_", "masks": "mask_"}[kind] if masks else ""
        figures |= {f"{prefix}ap": result.ap, f"{prefix}ap50": result.ap50, f"{prefix}ap75": result.ap75}
    if detector.propose:
        proposals = [detector.propose(image) for image, _ in test.samples]
        (figures["recall"],) = proposal_recall(proposals, targets, 0.5, [max(map(len, proposals))]).tolist()
    return figures


def described(row: Mapping[str, Any]) -> str:
    """A row as one line, figures in percent.

    >>> described({"seed": 0, "layer": "fc7", "fine_tuned": True, "ap": 0.5, "ap50": 0.75, "seconds": 1.5})
    'seed 0  layer fc7  fine_tuned True  ap 50.0  ap50 75.0  seconds 1.5'
    """
    cells = {name: f"{100 * value:.1f}" if "ap" in name or name == "recall" else value for name, value in row.items()}
    return "  ".join(f"{name} {value}" for name, value in cells.items())


# ------------------------------------------------------------------------- what only Fast R-CNN's needs


def learn_boxes_alone(model: FastRCNN, train: Data, settings: FastRCNNTrainingSettings) -> FastRCNN:
    """The second stage of stage-wise training: only the box layer learns, on features that were made for classes."""
    model.requires_grad_(False)
    box_layer = model.roi_heads.box_predictor["bbox_pred"].requires_grad_(True)
    model.roi_heads.config = RoIConfig()
    joint = joint_losses(model, train.samples, settings, train.proposals)
    fit(
        model,
        lambda iteration: {"loss_box_reg": joint(iteration)["loss_box_reg"]},
        LoopSettings(max(settings.iterations // 3, 1), settings.learning_rate, seed=settings.seed),
        groups=[{"params": list(box_layer.parameters()), "lr_mult": 1.0}],
    )
    return model.eval()


@torch.no_grad()
def with_svms(model: FastRCNN, train: Data) -> Detect:
    """Detection with R-CNN's support vector machines, fitted to fc7, in place of the softmax; boxes stay the same."""
    config, num_classes = RCNNConfig(), len(model.classes)
    model.eval()

    def box_features(image: Tensor, boxes: Tensor) -> Tensor:
        features, (size,) = model.features([image])
        return model.roi_heads.box_features(features, [resize_boxes(boxes, tuple(image.shape[1:]), size)])  # (P, D)

    pairs = list(zip(train.samples, train.proposals, strict=True))
    objects = [single_objects(target) for _, target in train.samples]
    own = torch.cat([box_features(image, one["boxes"]) for (image, _), one in zip(train.samples, objects, strict=True)])
    labels = torch.cat([one["labels"] for one in objects])
    some = torch.cat([box_features(image, boxes) for (image, _), boxes in pairs[:: len(pairs) // 100 or 1]])
    scale = scale_to(config.feature_norm, some.norm(dim=1))

    def images() -> Iterator[tuple[Tensor, Tensor]]:
        for ((image, target), boxes), one in zip(pairs, objects, strict=True):
            far = far_from_class(boxes, one, num_classes, config.negative_iou)
            yield box_features(image, boxes) * scale, far & ~in_crowd(boxes, target)[:, None]

    positives = [own[labels == label] * scale for label in range(1, num_classes)]
    weights, _ = mine_hard_negatives(positives, images, SVMSettings())

    @torch.no_grad()
    def detect(image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        x = box_features(image, boxes)
        deltas = model.roi_heads.box_predictor["bbox_pred"](x).view(len(boxes), num_classes, 4)
        margins = x * scale @ weights[:, :-1].T + weights[:, -1]  # (P, K - 1)
        return select_detections(
            decode_boxes(boxes, deltas, model.roi_heads.config.box_weights),
            F.pad(margins, (1, 0), value=-torch.inf),
            tuple(image.shape[1:]),
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
        )

    return detect


# ------------------------------------------------------------------------- the two on photographs


def compare_starts(root: Path, iterations: int | None = None) -> dict[str, Any]:
    """Coins and nuclei, fine-tuned from different starts; see :mod:`workshop.fine_tuning`."""
    images = {split: len(open_data("nuclei", root, split=split)) for split in ("train", "test")}
    record: dict[str, Any] = {}
    for name, learn, task, starts in (
        ("coins", fine_tuning.coins, fine_tuning.COINS, ("pretrained", "toy town", "random")),
        ("nuclei", partial(fine_tuning.nuclei, root), fine_tuning.NUCLEI, ("pretrained", "random")),
    ):
        task = replace(task, training=replace(task.training, iterations=iterations or task.training.iterations))
        rows = []
        for start in starts:
            model, _, row = learn(start, task)
            rows.append(row)
            print(described(row), flush=True)
        sizes = model.rpn.config.anchor_sizes[0]
        record[name] = {"settings": asdict(task), "anchors": sizes, "rows": rows}
    record["nuclei"]["images"] = images
    return record


def compare_convolutions(
    data: Sequence[str], network: Path, max_proposals: int, minircnn: Callable[[list[str]], None] | None = None
) -> list[dict[str, Any]]:
    """R-CNN as in 2014: the network of 2012, its trained convolutions against random ones, all else the same.

    Selective search, pool5 as features, SVMs with hard negatives, box regression (Girshick et al. 2014, sections 2 and
    3.2), by the commands ``train rcnn`` and ``evaluate rcnn``, which ``minircnn`` runs. ``data`` are the options that
    say which images and which class, ``network`` is the file of the trained convolutions. Every fifth image measures,
    the others teach.
    """
    minircnn = minircnn or (lambda words: subprocess.run([sys.executable, "-m", "minircnn", *words], check=True))
    rows, shared = [], [*data, "--max-proposals", str(max_proposals)]
    with TemporaryDirectory() as folder:
        for start, options in {"trained": [], "random": ["--from-scratch"]}.items():
            weights, measured = Path(folder) / f"{start}.safetensors", Path(folder) / f"{start}.measured.json"
            minircnn(["train", "rcnn", *shared, "--network", str(network), *options, "--out", str(weights)])
            found = {}
            for regress, option in {True: [], False: ["--no-regression"]}.items():
                words = [*shared, "--weights", str(weights), *option, "--json", str(measured)]
                minircnn(["evaluate", "rcnn", *words])
                found[regress] = json.loads(measured.read_text(encoding="utf-8"))
            moved = found[True]["result"]
            rows.append(
                {
                    "start": start,
                    "images": found[True]["images"],
                    "objects": sum(one["objects"] for one in moved["classes"]),
                    "recall": list(found[True]["proposal_recall"]["recall"].values())[-1],  # of all proposals
                    "ap50": moved["ap50"],
                    "ap50_without": found[False]["result"]["ap50"],
                    "ap": moved["ap"],
                }
            )
            print(described(rows[-1]), flush=True)
    return rows


# ------------------------------------------------------------------------- the command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of them and write its results."""
    parser = argparse.ArgumentParser(prog="python -m workshop.ablations", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="name", required=True)
    for name, ablation in ABLATIONS.items():
        command = commands.add_parser(name, help=" ".join(ablation.detectors.__doc__.split()))
        command.add_argument("--images", type=int, default=1000, help="training images (1000)")
        command.add_argument("--test-images", type=int, default=200)
        if ablation.settings:
            command.add_argument("--iterations", type=int, default=ablation.settings.iterations)
            command.add_argument("--seeds", type=int, default=ablation.seeds)
    tuning = commands.add_parser("fine_tuning", help="coins and nuclei, from different starts")
    tuning.add_argument("--root", type=Path, required=True, help="the folder stage1_train of BBBC038, or a part of it")
    tuning.add_argument("--iterations", type=int, help="of all trainings, for a quick look")
    oldest = commands.add_parser("rcnn_2014", help="R-CNN on photographs: trained against random convolutions")
    oldest.add_argument("--root", type=Path, required=True, help="the folder of the images")
    oldest.add_argument("--annotations", type=Path, required=True, help="their file in COCO's format")
    oldest.add_argument("--network", type=Path, required=True, help="the convolutions of 2012, an .npz file")
    oldest.add_argument("--class", dest="label", default="person", help="the class to find")
    oldest.add_argument("--max-proposals", type=int, default=500, help="of each image")
    for command in commands.choices.values():
        command.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write (data/results)")
    options = parser.parse_args(arguments)
    try:
        words, record = _record(options)
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    file = f"{options.name}_ablation.json" if options.name in ABLATIONS else f"{options.name}.json"
    out = options.out or RESULTS_FOLDER / file
    write_json(out, {"command": " ".join(["python -m workshop.ablations", options.name, *words]), **record})
    print(f"written to {out}")


def _record(options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """What comes behind the name in the command, and what is written."""
    if options.name == "fine_tuning":
        return ["--root …/stage1_train"], compare_starts(options.root, options.iterations)
    if options.name == "rcnn_2014":
        data = ["--data", "coco", "--root", str(options.root), "--annotations", str(options.annotations)]
        rows = compare_convolutions([*data, "--classes", options.label], options.network, options.max_proposals)
        about = {"class": options.label, "max_proposals": options.max_proposals, "rows": rows}
        return ["--root … --annotations … --network …"], about
    ablation = ABLATIONS[options.name]
    if ablation.settings:
        ablation = replace(ablation, settings=replace(ablation.settings, iterations=options.iterations))
    train, test = (read_data(*part, ablation) for part in (("train", options.images), ("test", options.test_images)))
    about = {"training_images": len(train.samples), "test_images": len(test.samples)}
    about |= {"settings": asdict(ablation.settings)} if ablation.settings else {"max_proposals": ablation.max_proposals}
    return [], {**about, "rows": run(ablation, train, test, getattr(options, "seeds", None))}


if __name__ == "__main__":
    main()
