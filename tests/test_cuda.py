"""On an NVIDIA GPU everything is what it is on the processor: operations, losses, gradients, trainings, detections.

In double precision, for the two round differently, and a proposal more or less is the difference between two runs in
single precision. Where that is used, convolutions do not round to ten bits of mantissa (TF32), PyTorch's default.
"""

from dataclasses import replace

import pytest
import torch
import torchvision
from typer.testing import CliRunner

from minircnn.boxes import batched_nms, box_iou, nms
from minircnn.cli import app
from minircnn.course.compare import pair
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import binary_masks, load_mask_rcnn
from minircnn.pooling import roi_align, roi_pool
from minircnn.training import loop, train_faster_rcnn
from tests.tiny import ellipses, some_images, tiny_mask_rcnn
from tests.training import test_recipes as recipes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
GPU = "cuda"


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def toy_town():
    test = ToyTown("test")
    return [test[index] for index in range(25)]


def boxes_at_random(count, size=120.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * size
    return torch.cat([start, start + 1 + torch.rand(count, 2, generator=generator) * size / 3], dim=1)


@pytest.mark.parametrize("output_size", [1, 6, (7, 3)])
@pytest.mark.parametrize(
    ("mine", "theirs", "options"),
    [
        (roi_pool, torchvision.ops.roi_pool, {}),
        (roi_align, torchvision.ops.roi_align, {"sampling_ratio": 2, "aligned": True}),
        (roi_align, torchvision.ops.roi_align, {"sampling_ratio": -1, "aligned": False}),
    ],
    ids=["pool", "align", "align-adaptive"],
)
def test_pooling_with_gradients(mine, theirs, options, output_size):
    """Of three maps, regions outside of them and empty bins among the rest; with torchvision's kernels on the GPU."""
    features = torch.randn(3, 5, 13, 17, generator=torch.Generator().manual_seed(1))
    rois = torch.cat([torch.arange(60)[:, None] % 3, boxes_at_random(60)], dim=1)
    rois[:4, 1:] += 500
    results = []
    for pool, device in ((mine, "cpu"), (mine, GPU), (theirs, GPU)):
        table = features.to(device, copy=True).requires_grad_()
        pooled = pool(table, rois.to(device), output_size, 1 / 8, **options)
        with torch.no_grad():  # RoIPool has another way without gradients
            assert torch.allclose(pooled, pool(table, rois.to(device), output_size, 1 / 8, **options), atol=1e-5)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(2))
        (pooled * weights.to(device)).sum().backward()
        results.append((pooled.detach().cpu(), table.grad.cpu()))
    for pooled, gradient in results[1:]:
        assert torch.allclose(pooled, results[0][0], atol=1e-5)
        assert torch.allclose(gradient, results[0][1], atol=1e-4)
    if mine is roi_pool:
        assert torch.equal(results[0][0], results[1][0])


def test_nms_and_overlaps():
    boxes, scores = boxes_at_random(3000), torch.rand(3000, generator=torch.Generator().manual_seed(3))
    on_gpu = boxes.to(GPU), scores.to(GPU)
    kept = nms(*on_gpu, 0.5)
    assert kept.is_cuda and 30 < len(kept) < 2900
    assert torch.equal(kept, torchvision.ops.nms(*on_gpu, 0.5)) and torch.equal(kept.cpu(), nms(boxes, scores, 0.5))
    groups = torch.arange(3000) % 4
    several = batched_nms(*on_gpu, groups.to(GPU), 0.5, 200)
    assert torch.equal(several.cpu(), batched_nms(boxes, scores, groups, 0.5, 200))
    assert len(nms(on_gpu[0][:0], on_gpu[1][:0], 0.5)) == 0
    overlaps = box_iou(on_gpu[0][:300], on_gpu[0])
    assert torch.allclose(overlaps, torchvision.ops.box_iou(on_gpu[0][:300], on_gpu[0]), atol=1e-6)


def test_losses_and_gradients_of_mask_rcnn():
    """Five losses in double precision, of images of different sizes, one without objects."""
    images, targets = some_images()
    for image, target in zip(images, targets, strict=True):
        target["masks"] = ellipses(target["boxes"], image.shape[1:])
    model, found = tiny_mask_rcnn().train(), []
    for part in (model.rpn, model.roi_heads):  # all anchors and RoIs, because devices draw differently
        part.config = replace(part.config, batch_size_per_image=10**6, positive_fraction=1.0)
    for device in ("cpu", GPU):
        model = model.to(device).double()
        model.zero_grad()
        losses = model.losses([image.to(device).double() for image in images], targets)
        sum(losses.values()).backward()
        gradients = {name: p.grad.cpu().clone() for name, p in model.named_parameters()}
        found.append(({name: float(loss.detach()) for name, loss in losses.items()}, gradients))
    (here, gradients), (there, others) = found
    assert here == pytest.approx(there, rel=1e-6) and min(here.values()) > 0 and len(here) == 5
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, others[name], rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


@pytest.mark.parametrize("load", [load_faster_rcnn, load_mask_rcnn])
def test_shipped_detectors_find_the_same(load, toy_town):
    model, (images, targets) = load(), zip(*toy_town, strict=True)
    averages = {}
    for precision, pixels in ((torch.float64, 1e-6), (torch.float32, None)):
        both = []
        for device in ("cpu", GPU):
            model = model.to(device, precision)
            found = [model.detect([image.to(device, precision)])[0] for image in images]
            both.append([{name: value.cpu() for name, value in one.items()} for one in found])
        for mine, other in zip(*both, strict=True) if pixels else ():
            assert torch.equal(mine["labels"], other["labels"]) and len(mine["labels"]) > 0
            assert torch.allclose(mine["boxes"], other["boxes"], rtol=0, atol=pixels)
        averages[precision] = [evaluate(found, targets).ap for found in both]
        if "masks" in both[0][0]:
            averages[precision] += [evaluate(list(map(binary_masks, one)), targets, kind="masks").ap for one in both]
    exact, single = averages.values()
    assert exact[::2] == pytest.approx(exact[1::2], abs=1e-6) and min(exact) > 0.4
    assert single == pytest.approx(exact, abs=3e-3)


@pytest.fixture
def double_precision():
    """For layers and images that a training makes."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train_on(device, options, **changes):
    """A training of six batches, if nothing else is said."""
    train = ToyTown("train", masks=False)
    samples = [(image.to(torch.get_default_dtype()), target) for image, target in (train[i] for i in range(8))]
    settings = replace(recipes.SETTINGS, **{"iterations": 6, **changes})
    network = recipes.network().to(device)
    return train_faster_rcnn(network, samples, train.classes, settings, rpn=recipes.RPN, quiet=True, **options)


@pytest.mark.usefixtures("double_precision")
def test_a_training_is_the_same_and_is_taken_up_again(tmp_path, monkeypatch):
    """Stopped after three batches."""

    def stop(model):
        raise KeyboardInterrupt

    (_, here), (model, there) = (train_on(device, {}) for device in ("cpu", GPU))
    assert {p.device.type for p in model.parameters()} == {GPU}
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    out = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_on(GPU, {"out": out, "evaluate": stop, "evaluate_every": 3})
    _, rest = train_on(GPU, {"out": out, "resume": True})
    assert len(rest) in (3, 4)
    for mine, other in [*zip(here, there, strict=True), *zip(rest, there[-len(rest) :], strict=True)]:
        assert mine == pytest.approx(other, rel=1e-5)


def test_mixed_precision_learns_nearly_the_same():
    exact, mixed = (train_on(GPU, {}, iterations=40, mixed_precision=half)[1] for half in (False, True))
    assert sum(mixed[0].values()) == pytest.approx(sum(exact[0].values()), rel=0.01)
    ends = [sum(sum(row.values()) for row in history[-10:]) / 10 for history in (exact, mixed)]
    assert ends[1] == pytest.approx(ends[0], rel=0.15) and ends[1] < 0.8 * sum(mixed[0].values())


def test_the_published_architecture_against_torchvisions():
    mine, theirs = (model.to(GPU) for model in pair())
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 30), size=(240, 360), mode="bilinear")[0].to(GPU)
    with torch.no_grad():
        found, wanted = mine.detect([image])[0], theirs([image])[0]
    assert len(found["labels"]) == len(wanted["labels"]) > 10
    assert torch.allclose(found["scores"], wanted["scores"], atol=1e-4)
    same = (found["boxes"] - wanted["boxes"]).abs().amax(dim=1) < 1e-2
    assert same.float().mean() > 0.95  # equal scores may stand in another order


def test_training_and_detecting_by_command(tmp_path):
    weights, run = tmp_path / "w.safetensors", CliRunner()
    for command in (
        f"train mask_rcnn --images 4 --iterations 2 --device cuda --mixed-precision --out {weights}",
        f"detect mask_rcnn data/toytown/test/000001.jpg --weights {weights} --device cuda "
        f"--out {tmp_path / 'found.png'}",
    ):
        result = run.invoke(app, command.split(), catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "found.png").is_file()
