"""Default hyperparameters, one by one, against the papers' sections that state them, and against torchvision."""

import inspect
from dataclasses import asdict

import pytest
from torchvision.models import detection

from minircnn.alexnet import ALEXNET_2012, TORCHVISION
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import PYRAMID_HEADS, PYRAMID_RPN, PYRAMID_TRANSFORM, RPNConfig
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, MaskRoIConfig
from minircnn.rcnn import FineTuningSettings, RCNNConfig, SVMSettings
from minircnn.resnet_fpn import ResNetFPNConfig
from minircnn.transforms import Transform

ROI = {
    "pool_size": 6,  # of AlexNet ("model S"); Fast R-CNN, 2.1: H and W fit the network's first fully connected layer
    "batch_size_per_image": 64,  # Fast R-CNN, 2.3: R = 128 from N = 2 images
    "positive_fraction": 0.25,  # 2.3
    "foreground_iou": 0.5,  # 2.3
    "background_iou": (0.0, 0.5),  # 2.3 has 0.1; its later code 0
    "box_weights": (10.0, 10.0, 5.0, 5.0),  # 2.3 normalizes targets; py-faster-rcnn by these
    "smooth_l1_beta": 1.0,  # equation 3
    "box_loss_weight": 1.0,  # lambda, 2.3
    "score_threshold": 0.05,  # py-faster-rcnn
    "nms_threshold": 0.3,  # the authors' code of R-CNN and of Fast R-CNN
    "max_detections": 100,
    "pooling": "pool",  # 2.1
    "sampling_ratio": 2,  # of RoIAlign alone: Mask R-CNN, 3: four points of a bin
    "aligned": True,
}
PAPERS = [
    (
        RCNNConfig(),
        {
            "context": 16 / 227,  # appendix A: p = 16 pixels of 227
            "svm_layer": "fc7",  # 3.2, table 2
            "box_layer": "pool5",  # appendix C
            "feature_norm": 20.0,  # the authors' code
            "negative_iou": 0.3,  # 2.3
            "box_iou": 0.6,  # appendix C
            "ridge": 1000.0,  # appendix C: lambda
            "score_threshold": -1.5,
            "nms_threshold": 0.3,
            "max_detections": 100,
        },
    ),
    (FineTuningSettings(), {"batch": 128, "positives": 32, "positive_iou": 0.5}),  # R-CNN, 2.3
    (
        SVMSettings(),  # the authors' code: C = 1e-3, positives twice, a bias of 10, retrained after 2000
        {"cost": 1e-3, "positive_weight": 2.0, "bias_scale": 10.0, "retrain_after": 2000, "passes": 1},
    ),
    (RoIConfig(), ROI),
    (
        RPNConfig(),
        {
            "anchor_sizes": ((128.0, 256.0, 512.0),),  # Faster R-CNN, 3.3
            "aspect_ratios": (0.5, 1.0, 2.0),  # 3.3
            "anchor_offset": 0.0,
            "foreground_iou": 0.7,  # 3.1.2
            "background_iou": 0.3,  # 3.1.2
            "batch_size_per_image": 256,  # 3.1.3
            "positive_fraction": 0.5,  # 3.1.3: 1:1
            "smooth_l1_beta": 1 / 9,  # the authors' code: sigma = 3
            "nms_threshold": (0.7, 0.7),  # 3.3
            "pre_nms_top_n": (12000, 6000),  # the authors' code
            "post_nms_top_n": (2000, 300),  # 3.3
            "min_size": 1e-3,
        },
    ),
    (
        MaskRoIConfig(),
        {
            **ROI,
            "pooling": "align",
            "mask_pool_size": 14,  # figure 4
            "mask_channels": (256, 256, 256, 256),  # figure 4
            "mask_hidden": None,  # figure 4: the deconvolution has as many
            "mask_kind": "sigmoid",  # 3
            "mask_loss_weight": 1.0,  # 3: L = L_cls + L_box + L_mask
        },
    ),
    (
        ALEXNET_2012,
        {
            "channels": (96, 256, 384, 384, 256),  # Krizhevsky et al. 2012, 3.5
            "groups": (1, 2, 1, 2, 2),  # figure 2
            "kernel": 11,
            "stride": 4,
            "padding": 0,
            "pool2_padding": 0,
            "response_norm": True,  # 3.3
            "batch_norm": False,
            "pool5": "max",
            "pool5_size": 6,  # R-CNN, 3.1: pool5 has 6 × 6 × 256
            "hidden": 4096,
            "dropout": 0.5,  # 4.2
            "input_size": 227,  # R-CNN, 2.1
            "mean": tuple(value / 255 for value in (104.00699, 116.66877, 122.67891)),  # Caffe's mean of ImageNet, BGR
            "std": (1 / 255, 1 / 255, 1 / 255),
            "blue_first": True,
        },
    ),
    (
        ResNetFPNConfig(),
        {"blocks": (3, 4, 6, 3), "width": 64, "channels": 256, "norm_eps": 1e-5},  # He et al. 2016, table 1; FPN, 3
    ),
]


@pytest.mark.parametrize(("config", "values"), PAPERS, ids=[type(config).__name__ for config, _ in PAPERS])
def test_defaults_are_those_of_the_paper(config, values):
    assert asdict(config) == values


def default(model, name):
    """What torchvision's detector takes if nothing is said."""
    return inspect.signature(model.__init__).parameters[name].default


@pytest.mark.parametrize(
    ("heads", "model"),
    [(PYRAMID_HEADS, detection.FasterRCNN), (PYRAMID_MASK_HEADS, detection.MaskRCNN)],
    ids=["faster", "mask"],
)
def test_defaults_of_the_pyramid_are_torchvisions(heads, model):
    rpn, transform = PYRAMID_RPN, PYRAMID_TRANSFORM
    for name, value in {
        "rpn_pre_nms_top_n_train": rpn.pre_nms_top_n[0],
        "rpn_pre_nms_top_n_test": rpn.pre_nms_top_n[1],
        "rpn_post_nms_top_n_train": rpn.post_nms_top_n[0],
        "rpn_post_nms_top_n_test": rpn.post_nms_top_n[1],
        "rpn_nms_thresh": rpn.nms_threshold[0],
        "rpn_fg_iou_thresh": rpn.foreground_iou,
        "rpn_bg_iou_thresh": rpn.background_iou,
        "rpn_batch_size_per_image": rpn.batch_size_per_image,
        "rpn_positive_fraction": rpn.positive_fraction,
        "box_score_thresh": heads.score_threshold,
        "box_nms_thresh": heads.nms_threshold,
        "box_detections_per_img": heads.max_detections,
        "box_fg_iou_thresh": heads.foreground_iou,
        "box_bg_iou_thresh": heads.background_iou[1],
        "box_batch_size_per_image": heads.batch_size_per_image,
        "box_positive_fraction": heads.positive_fraction,
        "min_size": transform.min_size,
        "max_size": transform.max_size,
    }.items():
        assert default(model, name) == value, name
    assert rpn.nms_threshold[0] == rpn.nms_threshold[1]


def test_anchors_and_grids_of_the_pyramid_are_torchvisions():
    model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    anchors = model.rpn.anchor_generator
    assert anchors.sizes == tuple(tuple(map(int, sizes)) for sizes in PYRAMID_RPN.anchor_sizes)
    assert set(anchors.aspect_ratios) == {PYRAMID_RPN.aspect_ratios}
    heads = PYRAMID_MASK_HEADS
    assert model.roi_heads.box_roi_pool.output_size == (heads.pool_size,) * 2
    assert model.roi_heads.mask_roi_pool.output_size == (heads.mask_pool_size,) * 2
    assert model.roi_heads.box_roi_pool.sampling_ratio == heads.sampling_ratio
    assert model.transform.size_divisible == PYRAMID_TRANSFORM.divisor
    assert tuple(model.transform.image_mean) == Transform().mean
    assert tuple(model.transform.image_std) == Transform().std == TORCHVISION.std
    assert model.roi_heads.box_coder.weights == heads.box_weights
