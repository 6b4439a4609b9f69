"""``minircnn train / evaluate --data``: the same as without the command line, and labels that go by names."""

import json
import shlex
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.main import get_command

from minircnn.alexnet import ALEXNET_2012, SMALL, AlexNet, load_alexnet, load_alexnet_2012, save_alexnet
from minircnn.cli import app
from minircnn.cli.class_names import common_classes
from minircnn.cli.data_options import DataOptions, how_to_measure, pictures_to_learn_from
from minircnn.cli.errors import INTERRUPTED
from minircnn.datasets import ToyTown
from minircnn.datasets.named import DATA_NAMES, open_data
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.evaluation import evaluate
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import binary_masks, load_mask_rcnn
from minircnn.rcnn import RCNNConfig, far_from_class, load_rcnn
from minircnn.selective_search import selective_search
from minircnn.training import (
    FasterRCNNTrainingSettings,
    FastRCNNTrainingSettings,
    MaskRCNNTrainingSettings,
    RCNNTrainingSettings,
    loop,
    train_fast_rcnn,
    train_faster_rcnn,
    train_mask_rcnn,
    train_rcnn,
)
from minircnn.training.checkpoints import Checkpoint
from minircnn.weights import WEIGHTS_FOLDER
from tests.datasets import conftest as small

COUNT = 10  # pictures: eight to learn from, two for testing


@pytest.fixture(autouse=True)
def threads():
    """Threads start faster than processes."""
    with joblib.parallel_backend("threading"):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Some pictures of Toy Town as anybody's data set: ``pictures/*.jpg`` and ``instances.json``."""
    folder = tmp_path_factory.mktemp("own")
    content = json.loads((DATA_FOLDER / "instances_train.json").read_text())
    content["images"] = content["images"][:COUNT]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    (folder / "pictures").mkdir()
    for image in content["images"]:
        name = Path(image["file_name"]).name
        shutil.copy(DATA_FOLDER / image["file_name"], folder / "pictures" / name)
        image["file_name"] = name
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def own(folder, annotations="instances.json"):
    """The options that name it."""
    return "--data", "coco", "--root", folder / "pictures", "--annotations", folder / annotations


def changed(folder, name, change):
    """A second annotation file, beside the first."""
    content = json.loads((folder / "instances.json").read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return own(folder, name)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """A file as that of the 2012 network: convolutions alone, and the mean colour."""
    torch.manual_seed(0)
    backbone = AlexNet(ALEXNET_2012, 1).backbone
    path = tmp_path_factory.mktemp("convolutions") / "conv.npz"
    arrays = {name: value.detach().half().numpy() for name, value in backbone.named_parameters()}
    np.savez(path, mean=np.array([100.0, 110.0, 120.0], np.float32), **arrays)
    return path


def assert_same(found, wanted):
    """States of two detectors; what is in a file has half precision."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=name)


# ---------------------------------------------------------------------------------------------------------------- train


class TestTrainRCNN:
    FEW = ("--classes", "person,tree", "--max-proposals", 6)

    def test_convolutions_of_2012_give_pool5_without_fine_tuning(
        self, call, folder, convolutions, tmp_path, monkeypatch
    ):
        for name in ("pictures", "instances.json"):
            (shutil.copytree if name == "pictures" else shutil.copy)(folder / name, tmp_path / name)
        shutil.copy(convolutions, tmp_path)
        monkeypatch.chdir(tmp_path)
        result = call(
            *("train", "rcnn", *own(Path()), *self.FEW, "--weights", "conv.npz", "--seed", 3, "--out", "x.safetensors")
        )
        assert result.exit_code == 0, result.output
        assert "1 of 3" not in result.stdout and "3 of 3: box regression" in result.stdout
        data = open_data("coco", "pictures", "instances.json", split="train", classes=["person", "tree"])
        samples = [data[index] for index in range(len(data))]
        assert len(samples) == 8
        settings = RCNNTrainingSettings(iterations=0, max_proposals=6, seed=3)
        expected = train_rcnn(
            load_alexnet_2012("conv.npz"),
            samples,
            [selective_search(image) for image, _ in samples],
            ["background", "person", "tree"],
            settings,
            config=RCNNConfig(svm_layer="pool5"),
            report=lambda _: None,
        )
        loaded = load_rcnn("x.safetensors")
        assert_same(loaded.state_dict(), expected.state_dict())
        assert loaded.svm.shape == (2, 9217) and loaded.network.config.mean[0] == pytest.approx(100 / 255)
        about, weights = json.loads(Path("x.json").read_text()), Path("x.safetensors").read_bytes()
        assert about["settings"] == vars(settings) and about["pretrained"]["file"] == "conv.npz"
        assert about["command"] == (
            "minircnn train rcnn --data coco --root pictures --annotations instances.json --classes person,tree "
            "--pictures 8 --iterations 0 --learning-rate 0.001 --max-proposals 6 --seed 3 --out x.safetensors "
            "--network conv.npz --features pool5"
        )
        Path("x.safetensors").unlink()
        _, *words = shlex.split(about["command"])
        assert call(*words).exit_code == 0
        assert Path("x.safetensors").read_bytes() == weights

    def test_the_same_network_from_scratch(self, call, folder, convolutions, tmp_path):
        """For a comparison that differs in nothing but the weights."""
        out = tmp_path / "x.safetensors"
        few = ("--pictures", 3, "--classes", "person", "--max-proposals", 2)
        options = ("--weights", convolutions, "--from-scratch", "--seed", 5)
        result = call("train", "rcnn", *own(folder), *few, *options, "--out", out)
        assert result.exit_code == 0, result.output
        found = load_rcnn(out).network
        learned = load_alexnet_2012(convolutions)
        torch.manual_seed(5)
        random = AlexNet(learned.config, 1)
        for name, value in random.backbone.state_dict().items():
            assert torch.equal(found.backbone.state_dict()[name], value.half().float()), name
        assert found.config.mean == learned.config.mean
        assert not torch.allclose(found.backbone.conv1.weight, learned.backbone.conv1.weight)
        about = json.loads(out.with_suffix(".json").read_text())
        assert about["pretrained"] == {"file": "none: random weights", "network_of": "conv.npz"}
        assert about["command"].endswith("--network conv.npz --features pool5 --from-scratch")
        assert about["settings"]["iterations"] == 0 and about["config"]["svm_layer"] == "pool5"

    def test_torchvisions_weights_in_the_same_place(self, call, folder, tmp_path):
        torch.manual_seed(0)
        reference, file = torchvision.models.alexnet(weights=None), tmp_path / "alexnet.pth"
        torch.save(reference.state_dict(), file)
        few = ("--pictures", 3, "--classes", "person", "--max-proposals", 2, "--iterations", 0, "--features", "pool5")
        result = call("train", "rcnn", *own(folder), *few, "--weights", file, "--out", tmp_path / "x.safetensors")
        file.unlink()  # 240 MB
        assert result.exit_code == 0, result.output
        network = load_rcnn(tmp_path / "x.safetensors").network
        assert torch.equal(network.backbone.conv4.weight, reference.features[8].weight.half().float())
        assert network.config.input_size == 224 and network.config.hidden == 0

    def test_a_network_with_all_layers_is_fine_tuned_and_gives_fc7(self, call, folder, tmp_path):
        save_alexnet(AlexNet(SMALL, 3), tmp_path / "small.safetensors", {})
        options = ("--network", tmp_path / "small.safetensors", "--iterations", 1, *self.FEW)
        result = call("train", "rcnn", *own(folder), *options, "--out", tmp_path / "x.safetensors")
        assert result.exit_code == 0, result.output
        assert "1 of 3: fine-tuning" in result.stdout
        model = load_rcnn(tmp_path / "x.safetensors")
        assert model.config.svm_layer == "fc7" and model.network.fc8.out_features == 3
        assert "--features" not in json.loads((tmp_path / "x.json").read_text())["command"]


def test_real_photographs_and_the_convolutions_of_2012(call, real_data, tmp_path):
    """From a few pictures of COCO the SVM learns to rank people whom it has not seen above what is none."""
    where = ("--root", real_data / "coco-mini" / "images", "--annotations", real_data / "coco-mini" / "instances.json")
    few = ("--classes", "person", "--pictures", 8, "--max-proposals", 25)
    weights = real_data / "alexnet-imagenet" / "alexnet_conv.npz"
    out = tmp_path / "x.safetensors"
    result = call("train", "rcnn", "--data", "coco", *where, *few, "--weights", weights, "--out", out)
    assert result.exit_code == 0, result.output
    data, model = open_data("coco", where[1], where[3], split="test", classes=["person"], masks=False), load_rcnn(out)
    margins, people = [], []
    for index in range(12):
        image, target = data[index]
        whole = target["boxes"][~target["iscrowd"]][:4]
        far = torch.tensor([[20.0, 20.0, 120.0, 200.0], [300.0, 100.0, 420.0, 330.0], [150.0, 10.0, 350.0, 90.0]])
        far = far[far_from_class(far, target, 2, 0.3)[:, 0]]
        boxes = torch.cat([whole, far])
        margins.append(model.scores(model.features(image, boxes, ["pool5"])["pool5"])[:, 1])
        people += [1] * len(whole) + [0] * len(far)
    assert 10 < sum(people) < len(people) - 10
    reached = roc_auc_score(people, torch.cat(margins))
    print(f"area under the ROC curve: {reached:.3f}")
    assert reached > 0.75


JOINT = {
    "fast_rcnn": (train_fast_rcnn, FastRCNNTrainingSettings, load_fast_rcnn, {"max_proposals": 9}),
    "faster_rcnn": (train_faster_rcnn, FasterRCNNTrainingSettings, load_faster_rcnn, {}),
    "mask_rcnn": (train_mask_rcnn, MaskRCNNTrainingSettings, load_mask_rcnn, {}),
}


@pytest.mark.parametrize("command", JOINT)
def test_the_others_learn_from_own_pictures(call, folder, tmp_path, command):
    train, kind, load, more = JOINT[command]
    torch.manual_seed(1)
    save_alexnet(AlexNet(SMALL, 18), tmp_path / "small.safetensors", {})
    options = ("--network", tmp_path / "small.safetensors", "--iterations", 1, "--min-size", 96, "--seed", 4)
    options += tuple(word for name in more for word in (f"--{name.replace('_', '-')}", more[name]))
    out = tmp_path / "x.safetensors"
    result = call("train", command, *own(folder), "--classes", "cat", "--classes", "person", *options, "--out", out)
    assert result.exit_code == 0, result.output
    data = open_data("coco", folder / "pictures", folder / "instances.json", split="train", classes=["cat", "person"])
    samples = [data[index] for index in range(len(data))]
    given = (samples, [selective_search(image) for image, _ in samples]) if more else (samples,)
    settings = kind(1, min_size=96, seed=4, **more)
    network = load_alexnet(tmp_path / "small.safetensors")
    expected, _ = train(network, *given, ["background", "cat", "person"], settings, quiet=True)
    assert_same(load(out).state_dict(), {name: value.half().float() for name, value in expected.state_dict().items()})
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["classes"] == ["background", "cat", "person"]
    assert (
        "--data coco --root pictures --annotations instances.json --classes cat,person --pictures 8"
        in (about["command"])
    )
    *_, advice, _ = result.stdout.split("`")
    assert "--split test" in advice
    program, *words = shlex.split(advice)
    measured = call(*words, "--pictures", 1)
    assert program == "minircnn"
    assert measured.exit_code == 0, measured.output
    assert " on 1 pictures, coco's test split" in measured.stdout
    assert "cat, person" not in measured.stdout, "nothing is left unmeasured, so these are its classes"


@pytest.mark.parametrize(
    ("count", "split", "measured_on"),
    [
        (COUNT, None, "test` tells how good it is"),
        (COUNT, "train", "test` tells how good it is"),
        (COUNT, "all", "all` tells how good it is, on the images that it has learned from"),
        (4, None, "train` tells how good it is, on the images that it has learned from"),
    ],
)
def test_the_advice_measures_on_unseen_images_if_there_are_any(folder, tmp_path, count, split, measured_on):
    def few(content):
        content["images"] = content["images"][:count]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]

    _, name, _, root, _, annotations = changed(folder, f"few{count}.json", few)
    options = DataOptions(name, root, annotations, split, ["cat, person"], drop_invalid=True)
    said = how_to_measure("rcnn", tmp_path / "x y.safetensors", options, masks=False)
    assert said.endswith(f"`{measured_on.partition('`')[2]}")
    program, *words = shlex.split(said.split("`")[1])
    assert [program, *words[:2]] == ["minircnn", "evaluate", "rcnn"]
    words.remove("--drop-invalid")
    assert dict(zip(words[2::2], words[3::2], strict=True)) == {
        "--data": "coco",
        "--root": str(root),
        "--annotations": str(annotations),
        "--split": measured_on.partition("`")[0],
        "--classes": "cat,person",
        "--weights": str(tmp_path / "x y.safetensors"),
    }


def test_good_weights_are_not_replaced_by_numbers_that_are_not_finite(call, folder, tmp_path):
    """A learning rate of 1e5 makes weights that half precision cannot hold, although every loss is finite."""
    options = ("--from-scratch", "--iterations", 1, "--images-per-batch", 1, "--min-size", 64, "--learning-rate", 1e5)
    out = tmp_path / "x.safetensors"
    for before in ([], [b"good", b'{"sha256": "of good"}']):  # a new file, and one that is there
        for content, ending in zip(before, (".safetensors", ".json"), strict=False):
            out.with_suffix(ending).write_bytes(content)
        result = call("train", "faster_rcnn", *own(folder), *options, "--out", out)
        (line,) = [line for line in result.stderr.splitlines() if "Error" in line]
        assert result.exit_code == 1 and f"{out}: " in line and "lower learning rate" in line
        assert ("not written" in line) if not before else ("kept" in line)
        assert [path.read_bytes() for path in (out, out.with_suffix(".json")) if path.exists()] == before


@pytest.mark.parametrize("command", ["rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn"])
def test_an_unfinished_run_does_not_go_on_with_other_data(call, folder, tmp_path, monkeypatch, command):
    """With as many images, and in the same network."""
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    save = Checkpoint.save

    def interrupted(self, iteration):
        save(self, iteration)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", interrupted)
    small = ("--max-proposals", 20) if command in ("rcnn", "fast_rcnn") else ("--min-size", 64)
    options = ("--from-scratch", "--iterations", 2, "--out", tmp_path / "x.safetensors", *small)
    assert call("train", command, *own(folder), *options).exit_code == INTERRUPTED
    moved = changed(
        folder, f"moved_{command}.json", lambda content: content["annotations"][0].update(bbox=[1, 2, 9, 9])
    )
    for data, names in ((moved, "annotations"), ((*own(folder), "--classes", "person,car"), "classes")):
        result = call("train", command, *data, *options, "--resume")
        (line,) = [line for line in result.stderr.splitlines() if "Error" in line]
        assert result.exit_code == 1 and "x.checkpoint: begun with other settings (" in line and f"{names} " in line
    assert call("train", command, *own(folder), *options, "--resume").exit_code == INTERRUPTED, "it goes on"


# ------------------------------------------------------------------------------------------------------------- evaluate


def measured(call, tmp_path, detector, *options):
    """What `evaluate rcnn` writes, and what it prints."""
    words = ("--weights", detector, "--max-proposals", 60, "--json", tmp_path / "x.json")
    result = call("evaluate", "rcnn", *words, *options)
    assert result.exit_code == 0, result.output
    return json.loads((tmp_path / "x.json").read_text()), result.stdout


@pytest.fixture(scope="module")
def direct(folder, detector):
    """What comes out without the command line, on all pictures: detections without regression, targets, names."""
    data, model = open_data("coco", folder / "pictures", folder / "instances.json", masks=False), load_rcnn(detector)
    samples = [data[index] for index in range(COUNT)]
    found = [model.detect([image], [selective_search(image)[:60]], regress=False)[0] for image, _ in samples]
    return found, [target for _, target in samples], data.classes


def rows(written):
    return {row["name"]: row for row in written["without_box_regression"]["classes"]}


def test_numbers_are_those_of_evaluate(call, folder, detector, direct, tmp_path):
    found, targets, classes = direct
    written, printed = measured(call, tmp_path, detector, *own(folder), "--split", "all")
    wanted = evaluate(found, targets, classes=classes)
    assert wanted.ap50 > 0
    assert written["without_box_regression"]["ap50"] == wanted.ap50
    assert (written["data"], written["pictures"]) == ("coco, all", COUNT)
    assert (written["root"], written["annotations"]) == (str(folder / "pictures"), str(folder / "instances.json"))
    assert printed.startswith("R-CNN on 10 pictures, all of coco: ")


def test_by_default_it_is_the_test_split_with_2000_proposals(call, folder, detector, tmp_path):
    options = ("--weights", detector, "--json", tmp_path / "x.json")
    result = call("evaluate", "rcnn", *own(folder), *options)
    written = json.loads((tmp_path / "x.json").read_text())
    assert (written["data"], written["pictures"], written["max_proposals"]) == ("coco, test", 2, 2000)
    assert result.stdout.startswith("R-CNN on 2 pictures, coco's test split: ")


def test_categories_in_another_order_change_nothing(call, folder, detector, tmp_path):
    def reverse(content):
        for one in content["categories"]:
            one["id"] = 100 - one["id"]
        for one in content["annotations"]:
            one["category_id"] = 100 - one["category_id"]

    wanted, _ = measured(call, tmp_path, detector, *own(folder), "--split", "all")
    found, printed = measured(call, tmp_path, detector, *changed(folder, "b.json", reverse), "--split", "all")
    assert list(rows(found)) == list(reversed(rows(wanted))) and "not measured" not in printed
    for name, row in rows(wanted).items():
        assert {**rows(found)[name], "label": 0} == {**row, "label": 0}
    for one in ("without_box_regression", "with_box_regression"):
        for key in ("ap", "ap50", "ar_100"):
            assert found[one][key] == pytest.approx(wanted[one][key], abs=1e-12)
    assert found["proposal_recall"] == wanted["proposal_recall"]


def test_a_detector_that_knows_more(call, folder, detector, tmp_path):
    everything, _ = measured(call, tmp_path, detector, *own(folder), "--split", "all")
    found, printed = measured(call, tmp_path, detector, *own(folder), "--split", "all", "--classes", "tree, car")
    assert list(rows(found)) == ["tree", "car"]
    for name, row in rows(found).items():
        assert row["detections"] > 0 and {**row, "label": 0} == {**rows(everything)[name], "label": 0}
    assert found["proposal_recall"] != everything["proposal_recall"], "only the objects that are measured count"
    assert "not measured, because these pictures do not tell: person, cat, house, balloon\n" in printed


def test_a_detector_that_knows_less(call, folder, detector, tmp_path):
    """Objects of a class that it does not know are no misses: they are not looked at, and that is said."""

    def add_zebras(content):
        content["categories"].append({"id": 0, "name": "zebra"})
        copies = [{**one, "category_id": 0, "id": one["id"] + 10**6} for one in content["annotations"]]
        content["annotations"] += copies

    wanted, _ = measured(call, tmp_path, detector, *own(folder), "--split", "all")
    found, printed = measured(call, tmp_path, detector, *changed(folder, "c.json", add_zebras), "--split", "all")
    assert printed.startswith("not measured, because the detector does not know them: zebra\n")
    assert found["with_box_regression"] == wanted["with_box_regression"]
    assert found["proposal_recall"] == wanted["proposal_recall"]


def test_masks_go_by_names_too(call, folder, tmp_path):
    """Mask R-CNN's, with the weights that come with the project, on two classes in another order than it knows."""
    names = ["tree", "person"]
    file = tmp_path / "x.json"
    result = call("evaluate", "mask_rcnn", *own(folder), "--classes", ",".join(names), "--json", file)
    assert result.exit_code == 0, result.output
    data, model = open_data("coco", folder / "pictures", folder / "instances.json", split="test"), load_mask_rcnn()
    found, targets = [], []
    for index in range(len(data)):
        image, target = data[index]
        one = binary_masks(model.detect([image])[0])
        for values, labels, collected in ((one, one["labels"], found), (target, target["labels"], targets)):
            label = torch.tensor([names.index(data.classes[k]) + 1 if data.classes[k] in names else 0 for k in labels])
            parts = {key: values[key][label > 0] for key in ("boxes", "masks", "scores", "area") if key in values}
            collected.append({**parts, "labels": label[label > 0]})
    assert tuple(data.classes) == model.classes
    wanted = evaluate(found, targets, classes=["background", *names], kind="masks")
    assert wanted.ap > 0.1
    assert json.loads(file.read_text())["mask_result"]["ap"] == pytest.approx(wanted.ap, abs=1e-12)


VOC_OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)


def write_voc(folder, data, count):
    """Pictures of Toy Town with PASCAL VOC's annotations; every second person is difficult."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    people = 0
    for index in range(count):
        stem, target, objects = f"{index:06}", data.load_target(index), []
        shutil.copy(data.image_path(index), folder / "JPEGImages" / f"{stem}.jpg")
        for (x1, y1, x2, y2), label in zip(target["boxes"].round().int().tolist(), target["labels"], strict=True):
            people += label == 1
            if data.classes[label] in ("person", "car", "cat"):
                difficult = int(label == 1 and people % 2 == 0)
                objects.append(VOC_OBJECT.format(data.classes[label], difficult, x1 + 1, y1 + 1, x2, y2))
        size = "<size><width>128</width><height>128</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.jpg</filename>{size}{''.join(objects)}</annotation>"
        (folder / "Annotations" / f"{stem}.xml").write_text(text)
    names = "".join(f"{index:06}\n" for index in range(count))
    (folder / "ImageSets" / "Main" / "test.txt").write_text(names)


def test_pascal_voc_is_measured_by_its_own_rules_too(call, detector, tmp_path):
    write_voc(tmp_path / "voc", ToyTown("test", masks=False), 6)
    names = ["person", "car", "cat"]
    options = ("--data", "voc", "--root", tmp_path / "voc", "--classes", ",".join(names))
    written, printed = measured(call, tmp_path, detector, *options)
    data = open_data("voc", tmp_path / "voc", split="test", classes=names, masks=False)
    model, found = load_rcnn(detector), []
    for index in range(len(data)):
        image = data.load_image(index)
        (one,) = model.detect([image], [selective_search(image)[:60]])
        kept = one["labels"] <= 3
        found.append({name: value[kept] for name, value in one.items()})
    assert model.classes[1:4] == tuple(names)
    targets = [data.load_target(index) for index in range(len(data))]
    assert any(target["difficult"].any() for target in targets)
    for protocol in ("voc2007", "voc2010"):
        wanted = evaluate(found, targets, classes=["background", *names], protocol=protocol).ap
        assert wanted > 0 and written[protocol] == pytest.approx(wanted, abs=1e-12)
    assert written["voc2007"] != written["voc2010"]
    assert (
        f"\nas PASCAL VOC counts: AP {100 * written['voc2007']:.1f} % at 11 points (2007), "
        f"{100 * written['voc2010']:.1f} % of the area (since 2010)\n"
    ) in printed


# ------------------------------------------------------------------------------------------------------ what is refused

SHORT = ("--iterations", 1, "--images-per-batch", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "cocoa"], "Error: --data: there is no 'cocoa' (did you mean 'coco'?); there are toytown, coco"),
        (["--data", "coco"], "Error: --root: coco needs one: the folder of the images"),
        (["--data", "coco", "--root", "."], "Error: --annotations: coco needs the JSON file"),
        (["--root", "."], "Error: --root .: toytown comes with the project; leave it out"),
        (["--split", "val"], "Error: --split val: this part of Toy Town is to measure with"),
        (["OWN", "--split", "val"], "Error: --split: there is no 'val' here; choose 'train' or 'test'"),
        (["OWN", "--classes", "person,preson"], "Error: --classes: there is no 'preson' (did you mean 'person'?)"),
        (["OWN", "--pictures", 9], "Error: --pictures 9: coco's train split has only 8"),
        (["OWN", "--evaluate-every", 1], "Error: --evaluate-every: coco has no pictures that are neither for"),
        (["OWN", "--out", "none/x.safetensors"], "the folder none does not exist; make it first"),
    ],
)
def test_what_training_refuses(call, folder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    words = [word for one in arguments for word in (own(folder) if one == "OWN" else [one])]
    result = call("train", "faster_rcnn", *SHORT, "--from-scratch", "--out", "x.safetensors", *words)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def only_crowds(content):
    for one in content["annotations"]:
        one["iscrowd"] = 1


@pytest.mark.parametrize("command", ["rcnn", *JOINT])
def test_nothing_is_learned_from_crowds_alone(call, folder, tmp_path, command):
    out = tmp_path / "x.safetensors"
    options = ("--from-scratch", "--iterations", 1, "--classes", "cat", "--out", out)
    result = call("train", command, *changed(folder, "crowds.json", only_crowds), *options)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert "Error: coco's train split, classes cat: only crowds (" in result.stderr
    assert "in its 8 images, nothing to learn from" in result.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_learned_without_objects_whatever_the_data(tmp_path):
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 8}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cat"}]}))
    small.write_voc(tmp_path / "voc", {"a": small.xml(small.an_object(difficult="1"))})
    small.write_people(tmp_path / "people", {"a": np.zeros((14, 22), dtype=int)})
    small.write_cell(tmp_path / "cells", "x")
    for options, words in (
        (DataOptions("coco", tmp_path, tmp_path / "a.json", "all"), "no object in its 1 images"),
        (DataOptions("voc", tmp_path / "voc"), r"only crowds \(1\) in its 1 images"),
        (DataOptions("pennfudan", tmp_path / "people", split="all"), "no object in its 1 images"),
        (DataOptions("nuclei", tmp_path / "cells", split="all"), "no object in its 1 images"),
    ):
        with pytest.raises(ValueError, match=words):
            pictures_to_learn_from(options, None, masks=False)


def one_defect(content):
    """Of the first and of the last image, which is for testing."""
    for image in (content["images"][0], content["images"][-1]):
        first = next(one for one in content["annotations"] if one["image_id"] == image["id"])
        first["bbox"] = [0, 0, 5, -1]


def test_what_is_invalid_is_left_out_if_asked_and_counted(call, folder, detector, tmp_path):
    options = changed(folder, "defects.json", one_defect)
    train = ("train", "faster_rcnn", *options, *SHORT, "--from-scratch", "--out", tmp_path / "x.safetensors")
    for command in (train, ("evaluate", "rcnn", *options, "--weights", detector, "--max-proposals", 5)):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "--drop-invalid" in result.stderr
        result = call(*command, "--drop-invalid")
        assert result.exit_code == 0, result.output
        assert "2 annotations left out\n" in result.stdout
        assert result.stdout.count("has no height") == 2
    assert "--drop-invalid" in json.loads((tmp_path / "x.json").read_text())["command"]


def test_masks_left_out_of_a_folder_are_counted(tmp_path, capsys):
    """They are files, which are opened one by one."""
    small.write_cell(tmp_path, "x", small.block((2, 5), (3, 9)), small.block((0, 0), (0, 0)))
    small.write_cell(tmp_path, "yy", small.block((2, 5), (3, 9)), small.block((0, 0), (0, 0)))
    options = DataOptions("nuclei", tmp_path, split="all", drop_invalid=True)
    pictures_to_learn_from(options, 1, masks=False)
    assert capsys.readouterr().out.startswith("1 annotation left out\n  mask b.png: it is empty")


def test_an_image_of_another_size_is_refused_before_any_work(call, folder, tmp_path):
    def other_size(content):
        content["images"][7]["width"] += 1

    options = changed(folder, "sizes.json", other_size)
    out = tmp_path / "x.safetensors"
    result = call("train", "faster_rcnn", *options, *SHORT, "--from-scratch", "--out", out)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert "boxes may not fit" in result.stderr


def test_what_is_odd_is_said_before_a_training(folder, tmp_path, capsys):
    """An image that a tag turns, a file under two ids, a second category of the same name."""
    (tmp_path / "pictures").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3

    def odd(content):
        content["categories"].append({**content["categories"][0], "id": 99})
        content["images"] = [content["images"][0], {**content["images"][0], "id": 98}]
        content["annotations"] = [
            one for one in content["annotations"] if one["image_id"] == content["images"][0]["id"]
        ]
        name = content["images"][0]["file_name"]
        with Image.open(folder / "pictures" / name) as file:
            file.save(tmp_path / "pictures" / name, exif=exif)

    _, name, _, _, _, annotations = changed(folder, "odd.json", odd)
    pictures_to_learn_from(DataOptions(name, tmp_path / "pictures", annotations, "all"), None, masks=False)
    lines = capsys.readouterr().out.splitlines()
    for line, words in zip(lines, ("the same file", "same name", "orientation 3", "orientation 3"), strict=True):
        assert words in line


@pytest.mark.parametrize("command", ["rcnn", *JOINT])
@pytest.mark.parametrize("other", ["pictures", "classes"])
def test_the_projects_weights_are_never_replaced_by_those_of_other_data(call, folder, command, other):
    before = {path: path.stat().st_mtime_ns for path in WEIGHTS_FOLDER.iterdir()}
    few = ("--iterations", 1, "--pictures", 4, "--from-scratch")
    options = own(folder) if other == "pictures" else ("--classes", "person")
    result = call("train", command, *options, *few)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--out FILE: say where to write; the files of data/weights are those of Toy Town" in result.stderr
    for name in (f"{command}.safetensors", "new.safetensors"):
        result = call("train", command, *options, *few, "--out", WEIGHTS_FOLDER / name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "this folder holds the weights that come with the project" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in WEIGHTS_FOLDER.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["OWN", "--split", "val"], 2, "--split: there is no 'val' here"),
        (["OWN", "--pictures", 3], 2, "--pictures 3: coco's test split has only 2"),
        (["OWN", "--classes", "zebra"], 2, "--classes: there is no 'zebra'"),
        (["--data", "voc", "--root", "none"], 1, "none"),
    ],
)
def test_what_evaluation_refuses(call, folder, detector, arguments, status, message):
    words = [word for one in arguments for word in (own(folder) if one == "OWN" else [one])]
    result = call("evaluate", "rcnn", "--weights", detector, *words)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (status, "", 1)
    assert message in result.stderr


def test_numbers_of_coco_without_a_class_are_not_told_as_left_out():
    assert common_classes("coco", ["background", "cat", "N/A", "N/A"], ["background", "cat"]).left_out == ""
    found = common_classes("coco", ["background", "cat", "N/A", "dog"], ["background", "cat"]).left_out
    assert found == "not measured, because these pictures do not tell: dog"


def test_classes_that_nobody_can_have_meant():
    def refused(known, shown):
        with pytest.raises(Exception) as caught:
            common_classes(Path("x"), ["background", *known], ["background", *shown])
        return str(caught.value)

    many = [f"c{i}" for i in range(12)]
    assert refused(["cat"], ["dog"]) == "--weights x: it knows cat, but these pictures show dog"
    assert refused(["cat", "dog"], ["dog", "cow"]).endswith(
        "show dog, cow; name those that both have with --classes dog"
    )
    assert "show c0, c1, c2, c3, c4, c5, c6, c7 and 4 more" in refused(["cat"], many)
    assert refused([], ["dog"]).startswith("--weights x: it knows ")


# ---------------------------------------------------------------------------------------------------------- small parts


def test_what_to_say_to_get_the_same_pictures():
    assert DataOptions().words() == {}
    assert DataOptions(classes=["cat, dog", "cow"]).words() == {"classes": "cat,dog,cow"}
    options = DataOptions("voc", Path("/home/me/VOC2007"), split="train", drop_invalid=True)
    wanted = {"data": "voc", "root": "/home/me/VOC2007", "split": "train", "drop_invalid": True}
    assert options.words() == wanted
    assert options.noted() == wanted | {"root": "VOC2007"}


@pytest.mark.parametrize(
    ("name", "wanted", "proposals"), [("toytown", None, None), ("coco", None, 2000), ("voc", 7, 7)]
)
def test_how_many_proposals(name, wanted, proposals):
    assert DataOptions(name).max_proposals(wanted) == proposals


def test_help_names_all_data_sets():
    for group in ("train", "evaluate"):
        for name in ("rcnn", *JOINT):
            options = {option.name: option for option in get_command(app).commands[group].commands[name].params}
            assert all(data in options["data"].help for data in DATA_NAMES)
            assert options["data"].default == "toytown"
            assert {"root", "annotations", "split", "classes", "drop_invalid"} <= set(options)
    network = {option.name: option for option in get_command(app).commands["train"].commands["rcnn"].params}["network"]
    assert network.opts == ["--network", "--weights"]
