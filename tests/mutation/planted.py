"""Bugs to plant, and the tests that must notice each. They are slips that known programs had, or that come easily."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """A bug.

    Attributes:
        name: what is wrong.
        file: in minircnn/.
        right: text of it, which must occur exactly once.
        wrong: takes its place.
        tests: that must go red, in tests/.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


BOXES = [
    Mutant(
        "area: pixels counted, + 1",
        "boxes.py",
        "return (x2 - x1) * (y2 - y1)  # (N,)",
        "return (x2 - x1 + 1) * (y2 - y1 + 1)",
        ("test_boxes.py::TestAreaAndIoU::test_values_by_hand",),
    ),
    Mutant(
        "IoU: the overlap is counted twice below the line",
        "boxes.py",
        "union = (box_area(a)[:, None] + box_area(b)).sub_(intersection)",
        "union = box_area(a)[:, None] + box_area(b)",
        ("test_boxes.py::TestAreaAndIoU::test_values_by_hand",),
    ),
    Mutant(
        "IoU: negative overlaps",
        "boxes.py",
        ".sub_(torch.maximum(ay1, by1)).clamp_(min=0)",
        ".sub_(torch.maximum(ay1, by1))",
        ("test_boxes.py::TestAreaAndIoU::test_equals_torchvision",),
    ),
    Mutant(
        "encode: pixels counted, + 1",
        "boxes.py",
        "src_size, dst_size = src[:, 2:] - src[:, :2], dst[:, 2:] - dst[:, :2]",
        "src_size, dst_size = src[:, 2:] - src[:, :2] + 1, dst[:, 2:] - dst[:, :2] + 1",
        ("test_boxes.py::TestEncodeDecode::test_values_by_hand",),
    ),
    Mutant(
        "encode: without weights",
        "boxes.py",
        "return deltas * deltas.new_tensor(weights)",
        "return deltas",
        ("test_boxes.py::TestEncodeDecode::test_values_by_hand",),
    ),
    Mutant(
        "encode: sizes without a logarithm",
        "boxes.py",
        "torch.log(dst_size / src_size)",
        "dst_size / src_size - 1",
        ("test_boxes.py::TestEncodeDecode::test_values_by_hand",),
    ),
    Mutant(
        "decode: growth is not capped",
        "boxes.py",
        ".clamp(max=MAX_LOG_SCALE)",
        "",
        ("test_boxes.py::TestEncodeDecode::test_growth_is_capped",),
    ),
    Mutant(
        "clip: height and width exchanged",
        "boxes.py",
        "    height, width = size\n    return torch.stack(",
        "    width, height = size\n    return torch.stack(",
        ("test_boxes.py::TestClip",),
    ),
    Mutant(
        "NMS: an overlap equal to the threshold is enough",
        "kernels.py",
        "suppresses = box_iou(boxes[block], boxes[block]) > threshold",
        "suppresses = box_iou(boxes[block], boxes[block]) >= threshold",
        ("test_boxes.py::TestNMS::test_an_iou_equal_to_the_threshold_is_kept",),
    ),
    Mutant(
        "NMS: the same between blocks",
        "kernels.py",
        "dropped = (box_iou(boxes[above], boxes[below]) > threshold)",
        "dropped = (box_iou(boxes[above], boxes[below]) >= threshold)",
        ("test_boxes.py::TestNMS::test_ties_in_scores_and_overlaps_equal_torchvision",),
    ),
    Mutant(
        "NMS: the threshold is rounded up",
        "kernels.py",
        "if rounded.item() > threshold:",
        "if False:",
        ("test_boxes.py::TestNMS::test_threshold_that_single_precision_rounds_up",),
    ),
    Mutant(
        "NMS: of equal scores the last box wins",
        "boxes.py",
        "best_first = scores.argsort(descending=True, stable=True)  # (N,)",
        "best_first = len(scores) - 1 - scores.flip(0).argsort(descending=True, stable=True)",
        ("test_boxes.py::TestNMS::test_ties_in_scores_and_overlaps_equal_torchvision",),
    ),
    Mutant(
        "NMS: a box that was dropped drops others",
        "kernels.py",
        "update = (survives @ before == 0).float()",
        "update = (survives.new_ones(len(survives)) @ before == 0).float()",
        ("test_boxes.py::TestNMS::test_a_dropped_box_drops_nobody",),
    ),
    Mutant(
        "batched NMS: groups are forgotten",
        "kernels.py",
        "suppresses &= groups[block, None] == groups[block]",
        "pass",
        ("test_boxes.py::TestBatchedNMS::test_equals_torchvision_class_by_class",),
    ),
]

MATCHING = [
    Mutant(
        "match: no object keeps its best box",
        "matching.py",
        "if allow_low_quality_matches and iou.shape[1]:",
        "if False:",
        ("test_matching.py::TestMatch::test_equals_torchvision",),
    ),
    Mutant(
        "match: the threshold itself is not enough",
        "matching.py",
        "label[best >= high] = POSITIVE",
        "label[best > high] = POSITIVE",
        ("test_matching.py::TestMatch::test_thresholds_include_high_and_exclude_low",),
    ),
    Mutant(
        "match: between the thresholds is background",
        "matching.py",
        "label = torch.full_like(gt_index, IGNORED)",
        "label = torch.full_like(gt_index, NEGATIVE)",
        ("test_matching.py::TestMatch::test_thresholds_include_high_and_exclude_low",),
    ),
    Mutant(
        "match: an object that overlaps nothing makes everything positive",
        "matching.py",
        "((iou == best_of_object) & (best_of_object > 0))",
        "(iou == best_of_object)",
        ("test_matching.py::TestMatch::test_an_object_that_overlaps_nothing_makes_nothing_positive",),
    ),
    Mutant(
        "subsample: what is ignored counts as background",
        "matching.py",
        "torch.where(labels == NEGATIVE)[0]",
        "torch.where(labels <= NEGATIVE)[0]",
        ("test_matching.py::TestSubsample::test_same_boxes_as_torchvision_for_the_same_seed",),
    ),
    Mutant(
        "subsample: no limit for positives",
        "matching.py",
        "min(len(positive), int(num * positive_fraction))",
        "min(len(positive), num)",
        ("test_matching.py::TestSubsample::test_same_boxes_as_torchvision_for_the_same_seed",),
    ),
]

POOLING = [
    Mutant(
        "RoIPool: regions half a pixel off",
        "pooling.py",
        "round_half_away(boxes * scale).unbind(1)",
        "round_half_away((boxes - 0.5) * scale).unbind(1)",
        ("test_pooling.py::TestRoIPool::test_edges_round_half_away_from_zero",),
    ),
    Mutant(
        "RoIPool: a half is rounded to the even number",
        "pooling.py",
        "round_half_away(boxes * scale).unbind(1)",
        "(boxes * scale).round().unbind(1)",
        ("test_pooling.py::TestRoIPool::test_edges_round_half_away_from_zero",),
    ),
    Mutant(
        "RoIPool: the last cell is not counted, no + 1",
        "pooling.py",
        "((last - first + 1).clamp(min=1) / count)",
        "((last - first).clamp(min=1) / count)",
        ("test_pooling.py::TestRoIPool::test_a_region_by_hand",),
    ),
    Mutant(
        "RoIPool: bins do not overlap",
        "pooling.py",
        "((number + 1) * length).ceil()",
        "((number + 1) * length).floor()",
        ("test_pooling.py::TestRoIPool::test_equals_torchvision_bit_for_bit",),
    ),
    Mutant(
        "RoIPool: an empty bin is not 0",
        "kernels.py",
        "table.gather(0, place).masked_fill_(empty, 0)",
        "table.gather(0, place)",
        ("test_pooling.py::TestRoIPool::test_outside_of_the_image_there_is_nothing",),
    ),
    Mutant(
        "RoIPool: an empty bin is not 0, without a gradient",
        "kernels.py",
        "pooled = cells.new_zeros(",
        "pooled = cells.new_ones(",
        ("test_pooling.py::TestRoIPool::test_outside_of_the_image_there_is_nothing",),
    ),
    Mutant(
        "RoIPool: edges are clipped before they are moved to the region",
        "pooling.py",
        "return (start + first).clamp(0, size).long(), (end + first).clamp(0, size).long()",
        "return tuple((edge.clamp(0, size) + first).clamp(0, size).long() for edge in (start, end))",
        ("test_pooling.py::TestRoIPool::test_equals_torchvision_bit_for_bit",),
    ),
    Mutant(
        "RoIPool: the map's last cell is clipped away",
        "pooling.py",
        "(end + first).clamp(0, size).long()",
        "(end + first).clamp(0, size - 1).long()",
        ("test_pooling.py::TestRoIPool::test_equals_torchvision_bit_for_bit",),
    ),
    Mutant(
        "RoIAlign: aligned is ignored",
        "pooling.py",
        "- (0.5 if aligned else 0.0)",
        "- 0.0",
        ("test_pooling.py::TestRoIAlign::test_on_a_slope_every_value_is_the_place_itself",),
    ),
    Mutant(
        "RoIAlign: half a pixel too much where it is not aligned",
        "pooling.py",
        "- (0.5 if aligned else 0.0)",
        "- 0.5",
        ("test_pooling.py::TestRoIAlign::test_values_and_gradients_equal_torchvisions",),
    ),
    Mutant(
        "RoIAlign: points beyond the edge are not moved to it",
        "pooling.py",
        "return place.clamp(0, size - 1), inside",
        "return place, inside",
        ("test_pooling.py::TestRoIAlign::test_half_precision_and_any_memory_format[roi_align_separable]",),
    ),
    Mutant(
        "RoIAlign: points outside count",
        "pooling.py",
        "inside = (number < points) & (place >= -1) & (place <= size)",
        "inside = number < points",
        ("test_pooling.py::TestRoIAlign::test_regions_outside_and_turned_around",),
    ),
    Mutant(
        "RoIAlign: regions smaller than a cell",
        "pooling.py",
        "shortest = -torch.inf if aligned else 1.0",
        "shortest = -torch.inf",
        ("test_pooling.py::TestRoIAlign::test_regions_outside_and_turned_around",),
    ),
    Mutant(
        "RoIAlign: a point too many where their number adapts",
        "pooling.py",
        "length.ceil().clamp(min=0)",
        "(length.floor() + 1).clamp(min=0)",
        ("test_pooling.py::TestRoIAlign::test_a_bin_for_each_cell_gives_the_map_itself",),
    ),
    Mutant(
        "RoIAlign: the number of points never adapts",
        "pooling.py",
        "length.ceil().clamp(min=0)",
        "torch.full_like(length, 2)",
        ("test_pooling.py::TestRoIAlign::test_values_and_gradients_equal_torchvisions",),
    ),
    Mutant(
        "RoIAlign: the mean over points inside alone",
        "pooling.py",
        "return place.clamp(0, size - 1), inside / points.clamp(min=1)",
        "return place.clamp(0, size - 1), inside / inside.sum(-1, keepdim=True).clamp(min=1)",
        ("test_pooling.py::TestRoIAlign::test_values_and_gradients_equal_torchvisions",),
    ),
    Mutant(
        "warp: without context",
        "rcnn.py",
        "self.config.context * size, fill",
        "0.0, fill",
        ("test_rcnn.py::test_features_are_those_of_each_box_alone",),
    ),
]

PROPOSALS = [
    Mutant(
        "anchors: the shift is forgotten",
        "faster_rcnn.py",
        "(torch.arange(count) + offset) * step",
        "torch.arange(count) * step",
        ("test_faster_rcnn.py::test_shifted_anchors_lie_around_the_middle_of_their_cells",),
    ),
    Mutant(
        "anchors: all ratios of a size before the next size",
        "faster_rcnn.py",
        "(tall[:, None] * size).flatten(), (1 / tall[:, None] * size).flatten()",
        "(tall * size[:, None]).flatten(), (1 / tall * size[:, None]).flatten()",
        ("test_faster_rcnn.py::test_base_anchors_equal_torchvisions",),
    ),
    Mutant(
        "anchors: ratios are widths over heights",
        "faster_rcnn.py",
        "torch.stack([-widths, -heights, widths, heights], dim=1)",
        "torch.stack([-heights, -widths, heights, widths], dim=1)",
        ("test_faster_rcnn.py::test_ratios_are_heights_over_widths_and_areas_stay",),
    ),
    Mutant(
        "anchors: cells column by column",
        "faster_rcnn.py",
        'indexing="xy"',
        'indexing="ij"',
        ("test_faster_rcnn.py::test_shifted_anchors_lie_around_the_middle_of_their_cells",),
    ),
    Mutant(
        "RPN: a gradient flows through proposals",
        "faster_rcnn.py",
        "    @torch.no_grad()\n    def filter_proposals(",
        "    def filter_proposals(",
        ("test_faster_rcnn.py::test_no_gradient_flows_through_the_coordinates_of_proposals",),
    ),
    Mutant(
        "RPN: negatives are told to be objects",
        "faster_rcnn.py",
        "(label[chosen] == POSITIVE).to(objectness)",
        "torch.ones_like(objectness[chosen])",
        ("test_faster_rcnn.py::test_proposals_and_losses_equal_torchvisions[True-one level]",),
    ),
    Mutant(
        "RPN: boxes of negatives count, too",
        "faster_rcnn.py",
        "chosen = torch.cat([positive, negative])\n            logits",
        "chosen = positive = torch.cat([positive, negative])\n            logits",
        ("test_faster_rcnn.py::test_proposals_and_losses_equal_torchvisions[True-one level]",),
    ),
    Mutant(
        "RPN: no object keeps its best anchor",
        "faster_rcnn.py",
        "config.background_iou, allow_low_quality_matches=True)",
        "config.background_iou)",
        ("test_faster_rcnn.py::test_labels_by_hand",),
    ),
    Mutant(
        "RPN: proposals reach beyond the image",
        "faster_rcnn.py",
        "boxes = clip_boxes(decode_boxes(rpn_outputs.anchors[index], deltas[index]), size)",
        "boxes = decode_boxes(rpn_outputs.anchors[index], deltas[index])",
        ("test_faster_rcnn.py::test_proposals_and_losses_equal_torchvisions[True-one level]",),
    ),
    Mutant(
        "RPN: levels drop each other's proposals",
        "faster_rcnn.py",
        "levels.append(torch.full_like(best, level))",
        "levels.append(torch.zeros_like(best))",
        ("test_faster_rcnn.py::test_levels_do_not_suppress_each_other",),
    ),
    Mutant(
        "RPN: crowds are background",
        "faster_rcnn.py",
        "label[in_crowd(anchors, target)] = IGNORED",
        "pass",
        ("test_faster_rcnn.py::test_crowds_teach_the_proposer_nothing",),
    ),
    Mutant(
        "targets: ~ of integers, an index",
        "targets.py",
        'single = ~target["iscrowd"].bool()',
        'single = ~target["iscrowd"]',
        ("test_targets.py::test_crowds_of_any_type_are_left_out_also_without_a_check",),
    ),
    Mutant(
        "targets: looked at only after images were mirrored",
        "training/batches.py",
        'target = check_target(target, f"samples[{index}]", size=tuple(image.shape[-2:]))',
        "pass",
        ("test_targets.py::test_fractions_are_found_before_a_mirrored_image_hides_them",),
    ),
    Mutant(
        "targets: masks of 255 stay numbers",
        "targets.py",
        "odd = inside & (masks != most)",
        "return masks",
        ("test_targets.py::test_other_types_mean_the_same",),
    ),
]

HEADS = [
    Mutant(
        "detections: labels one too low",
        "boxes.py",
        "scores[proposal, column], column + 1",
        "scores[proposal, column], column",
        ("test_boxes.py::test_background_is_never_found_and_boxes_may_be_shared",),
    ),
    Mutant(
        "detections: background is one",
        "boxes.py",
        "clip_boxes(boxes[:, 1:], size), scores[:, 1:]",
        "clip_boxes(boxes, size), scores",
        ("test_boxes.py::test_background_is_never_found_and_boxes_may_be_shared",),
    ),
    Mutant(
        "detections: NMS over all classes together",
        "boxes.py",
        "batched_nms(boxes, scores, labels, nms_threshold",
        "batched_nms(boxes, scores, torch.zeros_like(labels), nms_threshold",
        ("test_boxes.py::test_background_is_never_found_and_boxes_may_be_shared",),
    ),
    Mutant(
        "detections: the threshold itself is enough",
        "boxes.py",
        "scores > score_threshold",
        "scores >= score_threshold",
        ("test_boxes.py::test_the_threshold_itself_is_not_enough_and_margins_may_be_negative",),
    ),
    Mutant(
        "Fast R-CNN: the boxes of all classes cost",
        "fast_rcnn.py",
        "own = deltas[positive, labels[positive]]  # (positives, 4)",
        "own, positive = deltas[positive].flatten(0, 1), positive.repeat_interleave(deltas.shape[1])",
        ("test_fast_rcnn.py::TestLoss::test_only_the_true_class_gets_a_gradient_for_its_box",),
    ),
    Mutant(
        "Fast R-CNN: boxes of the background cost",
        "fast_rcnn.py",
        "torch.where(labels > 0)[0]",
        "torch.where(labels >= 0)[0]",
        ("test_fast_rcnn.py::TestLoss::test_by_hand",),
    ),
    Mutant(
        "Fast R-CNN: the box loss is divided by the positives",
        "fast_rcnn.py",
        'reduction="sum") / len(labels)',
        'reduction="sum") / len(positive)',
        ("test_fast_rcnn.py::TestLoss::test_by_hand",),
    ),
    Mutant(
        "Fast R-CNN: objects have no limited share of the batch",
        "fast_rcnn.py",
        "config.positive_fraction)\n            chosen = torch.cat([positive, negative]).sort()",
        "1.0)\n            chosen = torch.cat([positive, negative]).sort()",
        ("test_fast_rcnn.py::test_a_quarter_shows_objects_and_objects_take_part",),
    ),
    Mutant(
        "Fast R-CNN: objects are no proposals",
        "fast_rcnn.py",
        'torch.cat([proposed, objects["boxes"].to(proposed)])',
        "proposed",
        ("test_fast_rcnn.py::test_a_quarter_shows_objects_and_objects_take_part",),
    ),
    Mutant(
        "Fast R-CNN: boxes are decoded without weights",
        "fast_rcnn.py",
        "decode_boxes(boxes, d, config.box_weights)",
        "decode_boxes(boxes, d)",
        ("test_fast_rcnn.py::test_detections_equal_torchvisions[0]",),
    ),
    Mutant(
        "Mask R-CNN: the mask of another class is taught",
        "mask_rcnn.py",
        "own = logits[torch.arange(len(labels), device=labels.device), labels]",
        "own = logits[torch.arange(len(labels), device=labels.device), labels - 1]",
        ("test_mask_rcnn.py::test_only_the_true_classes_mask_is_looked_at",),
    ),
    Mutant(
        "Mask R-CNN: the mask of another class is shown",
        "mask_rcnn.py",
        "return every[torch.arange(len(labels), device=labels.device), labels]",
        "return every[torch.arange(len(labels), device=labels.device), labels - 1]",
        ("test_mask_rcnn.py::test_probabilities_are_those_of_the_class",),
    ),
    Mutant(
        "Mask R-CNN: targets half a pixel off",
        "mask_rcnn.py",
        "size, 1.0, aligned=aligned)",
        "size, 1.0, aligned=False)",
        ("test_mask_rcnn.py::test_aligned_targets_are_the_share_that_is_covered",),
    ),
    Mutant(
        "paste: half a pixel off",
        "mask_rcnn.py",
        "device=mask.device) + 0.5",
        "device=mask.device)",
        ("test_mask_rcnn.py::test_aligned_by_a_loop_over_pixels",),
    ),
    Mutant(
        "paste, as torchvision: the last row and column are left out",
        "mask_rcnn.py",
        "min(x2 + 1, size[1]), min(y2 + 1, size[0])",
        "min(x2, size[1]), min(y2, size[0])",
        ("test_mask_rcnn.py::test_equal_to_torchvisions_pixel_by_pixel",),
    ),
]

EVALUATION = [
    Mutant(
        "AP: the mean over images of each image's",
        "evaluation.py",
        "**_summarize(curves, rules),",
        "**(_summarize(curves, rules) if len(targets) < 2 else {name: sum(getattr(evaluate([d], [t], kind=kind, "
        "protocol=protocol), name) for d, t in zip(detections, targets)) / len(targets) "
        "for name in _summarize(curves, rules)}),",
        ("test_evaluation.py::test_the_data_set_counts_and_not_the_image",),
    ),
    Mutant(
        "AP: images are not ranked together",
        "evaluation.py",
        'np.argsort(-found.score[d], kind="stable")',
        "np.arange(len(d))",
        ("test_evaluation.py::test_the_data_set_counts_and_not_the_image",),
    ),
    Mutant(
        "recall: crowds are missed, too",
        "evaluation.py",
        "num_objects=(~ignored).sum(axis=1)",
        "num_objects=np.full(len(ignored), len(g))",
        ("test_evaluation.py::test_a_crowd_forgives_many_detections_inside_it",),
    ),
    Mutant(
        "COCO: a crowd is one large object",
        "evaluation.py",
        "crowd = wanted.crowd[g[objects]] & (not rules.of_voc)",
        "crowd = wanted.crowd[g[objects]] & False",
        ("test_evaluation.py::test_a_crowd_forgives_many_detections_inside_it",),
    ),
    Mutant(
        "COCO: 100 recalls in place of 101",
        "metrics.py",
        "np.linspace(0.0, 1.0, 101)",
        "np.linspace(0.0, 1.0, 100)",
        ("test_evaluation.py::test_equal_scores_keep_the_order_of_the_images",),
    ),
    Mutant(
        "COCO: an object may be found many times",
        "metrics.py",
        "taken[area, threshold, best[area, threshold]] = True",
        "pass",
        ("test_evaluation.py::test_an_object_is_found_once[coco]",),
    ),
    Mutant(
        "COCO: the threshold itself is not enough",
        "metrics.py",
        "free = (iou[d] >= floor) & ~taken",
        "free = (iou[d] > floor) & ~taken",
        ("test_evaluation.py::test_an_overlap_equal_to_the_threshold_is_enough",),
    ),
    Mutant(
        "VOC: an object may be found many times",
        "metrics.py",
        "first = chose & (chose.cumsum(axis=1) == 1)",
        "first = chose",
        ("test_evaluation.py::test_an_object_is_found_once[voc2010]",),
    ),
    Mutant(
        "AP: the curve is not interpolated",
        "metrics.py",
        "    return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]",
        "    return precision",
        ("test_metrics.py::test_interpolation_is_the_best_precision_at_this_recall_or_beyond",),
    ),
]

IMAGES = [
    Mutant(
        "transforms: slim images grow without end",
        "transforms.py",
        "_SLIMMEST = 4 ",
        "_SLIMMEST = 4000 ",
        ("test_transforms.py::test_without_a_largest_side_it_is_four_times_the_shorter_one",),
    ),
    Mutant(
        "resize: the caller's target is changed",
        "transforms.py",
        'changed = {**target, "boxes": resize_boxes(target["boxes"], old, new)}',
        'changed = target; changed["boxes"] = resize_boxes(target["boxes"], old, new)',
        ("test_transforms.py::test_nothing_that_is_given_changes",),
    ),
    Mutant(
        "resize: the scales of x and y are exchanged",
        "transforms.py",
        "torch.stack([horizontal, vertical, horizontal, vertical])",
        "torch.stack([vertical, horizontal, vertical, horizontal])",
        ("test_transforms.py::test_equals_torchvisions_transform",),
    ),
    Mutant(
        "hflip: width - 1",
        "transforms.py",
        "torch.stack([width - x2, y1, width - x1, y2], dim=1)",
        "torch.stack([width - 1 - x2, y1, width - 1 - x1, y2], dim=1)",
        ("test_transforms.py::test_flipped_boxes_equal_torchvisions",),
    ),
    Mutant(
        "hflip: masks stay as they are",
        "transforms.py",
        'flipped["masks"] = target["masks"].flip(-1)',
        'flipped["masks"] = target["masks"]',
        ("test_transforms.py::test_the_flipped_box_shows_the_flipped_object",),
    ),
    Mutant(
        "normalize: the order of channels is not heeded",
        "transforms.py",
        "image.flip(0) if self.blue_first else image",
        "image",
        ("test_transforms.py::test_blue_first",),
    ),
]

RCNN = [
    Mutant(
        "SVM: what overlaps an object by up to a half is a negative",
        "rcnn.py",
        "negative_iou: float = 0.3",
        "negative_iou: float = 0.5",
        ("test_rcnn.py::test_svms_equal_scikit_learn_on_the_papers_examples",),
    ),
    Mutant(
        "SVM: an object of another class is no negative",
        "rcnn.py",
        'is_class = objects["labels"][:, None] == torch.arange(1, num_classes)',
        'is_class = objects["labels"][:, None] >= torch.ones(num_classes - 1)',
        ("test_rcnn.py::test_a_negative_for_one_class_may_be_an_object_of_another",),
    ),
    Mutant(
        "SVM: features are not scaled",
        "rcnn.py",
        "return norm / mean if mean > 0 else 1.0",
        "return 1.0",
        ("test_rcnn.py::test_svms_equal_scikit_learn_on_the_papers_examples",),
    ),
    Mutant(
        "SVM: features are scaled in training alone",
        "rcnn.py",
        "scores = features * self.svm_scale @ self.svm",
        "scores = features @ self.svm",
        ("test_rcnn.py::test_detects_what_the_steps_by_hand_give",),
    ),
    Mutant(
        "box regression: learns from far proposals",
        "rcnn.py",
        "box_iou: float = 0.6",
        "box_iou: float = 0.3",
        ("test_rcnn.py::test_box_regressors_equal_scikit_learn",),
    ),
]

READING = [
    Mutant(
        "weights: checksums in a file of torch.save are not compared",
        "weights.py",
        "if damaged := archive.testzip():",
        "if damaged := None:",
        ("test_fuzzing.py::test_one_wrong_bit_is_never_another_number",),
    ),
    Mutant(
        "weights: nan is read",
        "weights.py",
        "if not value.isfinite().all():",
        "if False:",
        ("test_fuzzing.py::test_other_weights_are_refused[alexnet]",),
    ),
    Mutant(
        "weights: whole numbers are read as weights",
        "weights.py",
        "if ours.is_floating_point() != theirs.is_floating_point()",
        "if False",
        ("test_fuzzing.py::test_other_weights_are_refused[alexnet]",),
    ),
    Mutant(
        "weights: settings may have any type",
        "weights.py",
        "if not _fits(found[name], hints[name]):",
        "if False:",
        ("test_fuzzing.py::test_a_setting_of_another_type_is_refused",),
    ),
    Mutant(
        "checkpoints: checksums are not compared",
        "training/checkpoints.py",
        "state = read_torch(path)",
        'state = torch.load(path, map_location="cpu", weights_only=True)',
        ("test_fuzzing.py::test_a_checkpoint_with_one_wrong_bit_is_the_same_or_refused",),
    ),
    Mutant(
        "checkpoints: what was changed is taken",
        "training/checkpoints.py",
        "if fingerprint(*_parts(state)) != stated:",
        "if False:",
        ("training/test_checkpoints.py::test_what_is_not_as_it_was_written_is_refused",),
    ),
    Mutant(
        "checkpoints: other annotations are the same data",
        "training/checkpoints.py",
        "annotations = [fingerprint(*_annotation(samples, index))",
        "annotations = [fingerprint(index)",
        ("training/test_checkpoints.py::test_other_annotations_are_other_data_and_no_image_is_read",),
    ),
    Mutant(
        "trainings: the size of a batch stays the detector's",
        "training/recipes.py",
        "            model.transform = transform\n",
        "            pass\n",
        ("training/test_recipes.py::test_what_learns_in_fine_tuning",),
    ),
    Mutant(
        "trainings: no better is good enough",
        "training/loop.py",
        "if not last < first:",
        "if False:",
        ("training/test_checkpoints.py::test_a_training_that_ended_no_better_than_it_began_replaces_nothing",),
    ),
    Mutant(
        "published: last layers are drawn at random for any file",
        "published.py",
        "not (classes and of_coco and new_layers)",
        "not classes",
        ("test_published.py::test_new_layers_only_where_they_are_asked_for",),
    ),
    Mutant(
        "weights: tensors may claim any size",
        "weights.py",
        "size += part.numel() * part.element_size()",
        "size += part.element_size()",
        ("test_weights.py::test_tensors_whose_numbers_are_not_in_the_file_are_refused",),
    ),
    Mutant(
        "cache: what was damaged is taken",
        "cache.py",
        "if stated != _fingerprint_of(result):",
        "if False:",
        ("test_fuzzing.py::test_a_cached_result_with_one_wrong_bit_is_computed_anew",),
    ),
    Mutant(
        "COCO: images of any size may be promised",
        "datasets/coco.py",
        "elif height * width > MOST_PIXELS:",
        "elif False:",
        ("test_fuzzing.py::test_an_image_that_could_not_be_read_is_refused_before_its_masks_fill_the_memory",),
    ),
]

PYRAMID = [
    Mutant(
        "pyramid: an object of ImageNet's size belongs to P5",
        "pooling.py",
        "CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4",
        "CANONICAL_SIZE, CANONICAL_LEVEL = 224, 5",
        ("test_pooling.py::TestPyramid::test_levels_equal_torchvisions_mapper",),
    ),
    Mutant(
        "pyramid: levels rounded to the nearest, not down",
        "pooling.py",
        "+ 1e-6).floor()",
        "+ 1e-6).round()",
        ("test_pooling.py::TestPyramid::test_levels_equal_torchvisions_mapper",),
    ),
    Mutant(
        "pyramid: regions come back in the order of their levels",
        "pooling.py",
        "return torch.cat(parts)[order.argsort()]",
        "return torch.cat(parts)",
        ("test_pooling.py::TestPyramid::test_each_region_comes_from_its_own_level",),
    ),
    Mutant(
        "frozen batch normalization: the mean is added",
        "resnet_fpn.py",
        "self.bias - self.running_mean * factor",
        "self.bias + self.running_mean * factor",
        ("test_resnet_fpn.py::test_frozen_batch_normalization",),
    ),
    Mutant(
        "frozen batch normalization: without eps",
        "resnet_fpn.py",
        "(self.running_var + self.eps).rsqrt()",
        "self.running_var.rsqrt()",
        ("test_resnet_fpn.py::test_frozen_batch_normalization",),
    ),
    Mutant(
        "frozen batch normalization: the summand is scaled twice when it is folded",
        "resnet_fpn.py",
        "summand, conv.stride, conv.padding)",
        "summand * factor, conv.stride, conv.padding)",
        ("test_resnet_fpn.py::test_convolution_and_normalization_in_one_step",),
    ),
    Mutant(
        "pyramid: coarse maps are not handed on",
        "resnet_fpn.py",
        'merged[level] = fine + F.interpolate(merged[level + 1], size=fine.shape[2:], mode="nearest")',
        "merged[level] = fine",
        ("test_resnet_fpn.py::test_coarse_maps_reach_fine_ones_and_not_the_other_way",),
    ),
    Mutant(
        "pyramid: only the next level is handed on",
        "resnet_fpn.py",
        "for level in reversed(range(len(merged) - 1)):",
        "for level in range(len(merged) - 1):",
        ("test_resnet_fpn.py::test_pyramid_equals_torchvisions",),
    ),
    Mutant(
        "pyramid: regions are taken from P6, too",
        "fast_rcnn.py",
        'if name != "pool"]',
        "]",
        ("test_published.py::test_regions_are_taken_from_their_own_level",),
    ),
    Mutant(
        "published: the usual eps for weights that were trained without",
        "published.py",
        "norm_eps=0.0 if trained_with_zero else 1e-5",
        "norm_eps=1e-5",
        ("test_published.py::test_published_weights_are_fetched_once_and_have_their_eps",),
    ),
    Mutant(
        "published: the branch's convolutions are numbered from 1",
        "published.py",
        "int(found[1]) - 1",
        "int(found[1])",
        ("test_published.py::test_names_by_hand",),
    ),
    Mutant(
        "half precision: variances become 0",
        "weights.py",
        "value.half() if name in learned else value",
        "value.half() if value.is_floating_point() else value",
        ("training/test_recipes.py::test_what_is_written_is_read_again",),
    ),
    Mutant(
        "fine-tuning: layers that should stay learn",
        "training/recipes.py",
        "model.backbone.freeze(model.backbone.trainable_layers)",
        "model.backbone.freeze(5)",
        ("training/test_recipes.py::test_what_learns_in_fine_tuning",),
    ),
    Mutant(
        "VOC: pixels counted from 1",
        "datasets/voc.py",
        "box = (xmin - 1, ymin - 1, xmax, ymax)",
        "box = (xmin, ymin, xmax + 1, ymax + 1)",
        ("datasets/test_voc.py::test_by_hand",),
    ),
    Mutant(
        "boxes of masks: the last pixel is left out",
        "datasets/folders.py",
        "torch.where(occupied, place, -1).amax(dim=1) + 1",
        "torch.where(occupied, place, -1).amax(dim=1)",
        ("datasets/test_folders.py::test_by_hand",),
    ),
]

MUTANTS = [*BOXES, *MATCHING, *POOLING, *PROPOSALS, *HEADS, *EVALUATION, *IMAGES, *RCNN, *READING, *PYRAMID]
