"""The papers' size, run small: who is timed on what, and what is multiplied. Then the size itself, by its settings."""

import pytest
import torch

from minircnn.alexnet import ALEXNET_2012
from minircnn.boxes import box_area
from minircnn.faster_rcnn import RPNConfig
from minircnn.history import PaperScale, Search, by_stages, measure_at_scale, search
from minircnn.history import scale as module
from minircnn.history.scale import filled_up, let_some_pass, paper_models, paper_picture
from tests.fast_rcnn.conftest import TINY

SMALL = PaperScale(
    network=TINY,
    classes=4,
    size=(60, 90),
    proposals=40,
    crops=8,
    rounds=3,
    rpn=RPNConfig(anchor_sizes=((16.0, 32.0),), pre_nms_top_n=(200, 200), post_nms_top_n=(50, 30)),
    mask_channels=(6,),
)


def test_the_size_is_the_papers():
    scale = PaperScale()
    assert (scale.size, scale.proposals, scale.classes, scale.network) == ((600, 800), 2000, 21, ALEXNET_2012)
    assert scale.network.input_size == 227 and scale.network.hidden == 4096
    assert scale.rpn.anchors_per_cell == 9 and scale.rpn.post_nms_top_n[1] == 300
    assert scale.mask_channels == (256,) * 4


def test_everybody_is_timed_on_what_the_settings_say(two_threads, monkeypatch):
    """Each detector in turn, round by round; R-CNN on few crops, multiplied behind the search."""
    calls = []

    def noted(model, image, found=None):
        assert torch.get_num_threads() == 1
        trace = by_stages(model, image, found)
        calls.append((type(model).__name__, trace))
        return trace

    monkeypatch.setattr(module, "by_stages", noted)
    found = measure_at_scale(SMALL)
    names = ["RCNN", "FastRCNN", "FasterRCNN", "MaskRCNN"]
    assert [name for name, _ in calls] == names * 4, "three rounds, and one to warm up"
    of = {name: [trace for other, trace in calls if other == name] for name in names}
    assert {len(trace.proposals) for trace in of["RCNN"]} == {8}
    assert {len(trace.proposals) for trace in of["FastRCNN"]} == {40}
    assert torch.equal(of["RCNN"][0].proposals, of["FastRCNN"][0].proposals[:8])
    for key, name in zip(("rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn"), names, strict=True):
        factor = 5 if key == "rcnn" else 1
        for stage in ("features", "heads", "selection"):
            middle = sorted(trace.seconds[stage] for trace in of[name][1:])[1]
            assert found["milliseconds"][key][stage] == pytest.approx(1000 * factor * middle)
        middle = sorted(trace.seconds["proposals"] for trace in of[name][1:])[1]
        assert found["milliseconds"][key]["proposals"] == pytest.approx(1000 * middle), "the search is not multiplied"
    assert "masks" in found["milliseconds"]["mask_rcnn"] and "masks" not in found["milliseconds"]["faster_rcnn"]
    assert (found["size"], found["proposals"], found["crops"], found["rounds"]) == ((60, 90), 40, 8, 3)
    assert found["own"] == len(of["MaskRCNN"][0].proposals) <= 30
    assert found["outlined"] == len(of["MaskRCNN"][0].detections["labels"]) > 0
    assert found["found"] == len(search(paper_picture((60, 90)), 40).boxes)


def test_selective_search_and_random_boxes_share_the_places():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 20, 30]])
    assert torch.equal(filled_up(boxes, 1, (60, 90)), boxes[:1])
    assert torch.equal(filled_up(boxes, 2, (60, 90)), boxes)
    filled = filled_up(boxes, 500, (60, 90))
    assert torch.equal(filled[:2], boxes) and filled.shape == (500, 4)
    assert (filled[:, :2] >= 0).all() and (filled[:, 2] <= 90).all() and (filled[:, 3] <= 60).all()
    assert filled[2:, 2].max() > 70 and filled[2:, 3].max() > 45, "all over the picture, which is wide"
    assert (box_area(filled[2:]) > 0).all() and len(filled.unique(dim=0)) == 500
    assert torch.equal(filled, filled_up(boxes, 500, (60, 90)))
    assert filled_up(boxes[:0], 3, (60, 90)).shape == (3, 4)


@pytest.mark.parametrize("key", ["rcnn", "fast_rcnn", "faster_rcnn"])
def test_as_many_scores_pass_as_there_are_proposals(key):
    """Counted where nothing is suppressed and nothing cut off: every passing pair is a detection."""
    model, image = paper_models(SMALL)[key], paper_picture(SMALL.size)
    found = None if key == "faster_rcnn" else Search(filled_up(torch.zeros(0, 4), 40, SMALL.size), 0.0)
    let_some_pass(model, image, found)
    owner = model if key == "rcnn" else model.roi_heads
    owner.config = owner.config.__class__(**{**vars(owner.config), "nms_threshold": 1.0, "max_detections": 10_000})
    trace = by_stages(model, image, found)
    assert len(trace.detections["labels"]) == pytest.approx(len(trace.proposals), abs=3)


def test_models_share_one_network_and_disturb_no_draws():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    models = paper_models(SMALL)
    assert torch.equal(torch.rand(1), expected)
    backbones = [
        models["rcnn"].network.backbone,
        *(models[k].backbone for k in ("fast_rcnn", "faster_rcnn", "mask_rcnn")),
    ]
    assert all(backbone is backbones[0] for backbone in backbones)
    assert not any(model.training for model in models.values())
    assert len(models["mask_rcnn"].classes) == 4


@pytest.mark.parametrize("size", [(600, 800), (60, 90), (90, 60)])
def test_the_picture_is_a_photograph_of_the_right_size(size):
    image = paper_picture(size)
    assert image.shape == (3, *size) and image.min() >= 0 and image.max() <= 1
    assert image.std() > 0.1, "not one colour"
    if size == (600, 800):  # enlarged, not stretched: every second pixel is close to the original's
        from skimage import data

        original = torch.from_numpy(data.coffee()).permute(2, 0, 1).float() / 255  # (3, 400, 600)
        small = torch.nn.functional.interpolate(image[None], size=(400, 533), mode="area")[0]
        assert (small - original[:, :, :533]).abs().mean() < 0.02


@pytest.mark.parametrize("changes", [{"crops": 0}, {"crops": 41}, {"rounds": 0}])
def test_what_is_refused(changes):
    with pytest.raises(ValueError, match=r"crops must be from 1 to proposals, and rounds at least 1"):
        PaperScale(**{"proposals": 40, "crops": 8, **changes})
