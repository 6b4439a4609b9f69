"""Bugs to plant, and the tests that must notice each. They are slips that known programs had, or that come easily.

The table names, by indentation: a file in minircnn/, a test in tests/, what is wrong, and as in a patch the text that
is right (-), which must occur exactly once in the file, and the one that takes its place (+).
"""

TABLE = """
boxes.py
  test_boxes.py::TestAreaAndIoU::test_values_by_hand
    area: pixels counted, + 1
      - return (x2 - x1) * (y2 - y1)  # (N,)
      + return (x2 - x1 + 1) * (y2 - y1 + 1)
    IoU: the overlap is counted twice below the line
      - (bx2 - bx1) * (by2 - by1)).sub_(intersection)
      + (bx2 - bx1) * (by2 - by1))
  test_boxes.py::TestAreaAndIoU::test_equals_torchvision
    IoU: negative overlaps
      - .sub_(torch.maximum(ay1, by1)).clamp_(min=0)
      + .sub_(torch.maximum(ay1, by1))
  test_boxes.py::TestEncodeDecode::test_values_by_hand
    encode: pixels counted, + 1
      - src_size, dst_size = src[:, 2:] - src[:, :2], dst[:, 2:] - dst[:, :2]
      + src_size, dst_size = src[:, 2:] - src[:, :2] + 1, dst[:, 2:] - dst[:, :2] + 1
    encode: without weights
      - return deltas * deltas.new_tensor(weights)
      + return deltas
    encode: sizes without a logarithm
      - torch.log(dst_size / src_size)
      + dst_size / src_size - 1
  test_boxes.py::TestEncodeDecode::test_equal_torchvision
    decode: growth is not capped
      - .clamp(max=MAX_LOG_SCALE)
      +
  test_boxes.py::test_clip_equals_torchvision_and_takes_height_first
    clip: height and width exchanged
      - height, width = size
      -     return torch.stack(
      + width, height = size
      +     return torch.stack(
  test_boxes.py::TestNMS::test_ties_in_scores_and_overlaps_equal_torchvision
    NMS: of equal scores the last box wins
      - best_first = scores.argsort(descending=True, stable=True)  # (N,)
      -     return best_first
      + best_first = len(scores) - 1 - scores.flip(0).argsort(descending=True, stable=True)
      +     return best_first
  test_fast_rcnn.py::test_detections_equal_torchvisions
    detections: labels one too low
      - scores[proposal, column], column + 1
      + scores[proposal, column], column
    detections: background is one
      - clip_boxes(boxes[:, 1:], size), scores[:, 1:]
      + clip_boxes(boxes, size), scores
    detections: NMS over all classes together
      - batched_nms(boxes, scores, labels, nms_threshold
      + batched_nms(boxes, scores, torch.zeros_like(labels), nms_threshold
  test_boxes.py::test_the_threshold_itself_is_not_enough_and_margins_may_be_negative
    detections: the threshold itself is enough
      - scores > score_threshold
      + scores >= score_threshold
  test_boxes.py::TestMatch::test_equals_torchvision
    match: no object keeps its best box
      - if allow_low_quality_matches and iou.shape[1]:
      + if False:
    match: the threshold itself is not enough
      - label[best >= high] = POSITIVE
      + label[best > high] = POSITIVE
    match: between the thresholds is background
      - label = torch.full_like(gt_index, IGNORED)
      + label = torch.full_like(gt_index, NEGATIVE)
  test_boxes.py::TestMatch::test_an_object_that_overlaps_nothing_makes_nothing_positive
    match: an object that overlaps nothing makes everything positive
      - ((iou == best_of_object) & (best_of_object > 0))
      + (iou == best_of_object)
  test_boxes.py::test_subsample_takes_the_same_boxes_as_torchvision_for_the_same_seed
    subsample: what is ignored counts as background
      - torch.where(labels == NEGATIVE)[0]
      + torch.where(labels <= NEGATIVE)[0]
    subsample: no limit for positives
      - min(len(positive), int(num * positive_fraction))
      + min(len(positive), num)
kernels.py
  test_boxes.py::TestNMS::test_ties_in_scores_and_overlaps_equal_torchvision
    NMS: an overlap equal to the threshold is enough
      - iou(boxes[block], boxes[block]).gt_(threshold)
      + iou(boxes[block], boxes[block]).ge_(threshold)
    NMS: the same of boxes that fit into one block
      - return _resolve(iou(boxes, boxes).gt_(threshold)).nonzero()
      + return _resolve(iou(boxes, boxes).ge_(threshold)).nonzero()
    NMS: the same between blocks
      - iou(boxes[survivors], behind).gt_(threshold)
      + iou(boxes[survivors], behind).ge_(threshold)
  test_boxes.py::TestNMS::test_threshold_that_single_precision_rounds_up
    NMS: the threshold is rounded up
      - if float(rounded) > threshold else rounded
      + if False else rounded
  test_boxes.py::TestNMS::test_ties_in_scores_and_overlaps_equal_torchvision
    NMS: a box that was dropped drops others
      - update = (survives[..., None, :] @ before == 0)
      + update = (left[..., None, :] @ before == 0)
  test_kernels.py::TestNMS
    batched NMS: groups are forgotten
      - .mul_(groups[:, None] == groups)
      +
    batched NMS: an overlap equal to the threshold is enough in a batch
      - iou(boxes[:, first:end], boxes[:, first:]).gt_(threshold)
      + iou(boxes[:, first:end], boxes[:, first:]).ge_(threshold)
    batched NMS: nothing is dropped behind the first step of a batch
      - left[:, end:] &= (survivors
      + left[:, end:] |= (survivors
    batched NMS: survivors come group by group
      - by_group[torch.cat(kept)].sort().values
      + by_group[torch.cat(kept)]
  test_kernels.py::TestRoIPool
    RoIPool: -0 is less than 0
      - (cells.float() + 0.0)
      + cells.float().clone()
    RoIPool: of numbers below 0 the least is the largest
      - bitwise_and_(0x7FFFFFFF)
      + bitwise_and_(0)
  test_kernels.py::TestRoIAlign::test_many_regions_take_the_memory_of_a_part
    RoIAlign: many regions all at once
      - len(top) > 4 * step
      + False
  test_pooling.py::TestRoIPool::test_equals_torchvision_bit_for_bit
    RoIPool: an empty bin is not 0
      - pooled.index_fill_(0, empty, 0)
      + pass
    RoIPool: the gradient of an empty bin goes to a cell
      - number.index_fill_(0, empty, len(values))
      + number.index_fill_(0, empty, 0)
    RoIPool: ranks of the second image are those of the first
      - ranks = (first + torch.arange(size, device=first.device))
      + ranks = (0 * first + torch.arange(size, device=first.device))
    RoIPool: an empty bin is not 0, without a gradient
      - pooled = cells.new_zeros(
      + pooled = cells.new_ones(
pooling.py
  test_pooling.py::TestRoIPool::test_edges_round_half_away_from_zero
    RoIPool: regions half a pixel off
      - cells_of_roi_pool(boxes * scale)
      + cells_of_roi_pool((boxes - 0.5) * scale)
    RoIPool: a half is rounded to the even number
      - rounded = whole + regions.sign() * ((regions - whole).abs() >= 0.5)
      + rounded = regions.round()
  test_pooling.py::TestRoIPool::test_a_region_by_hand
    RoIPool: the last cell is not counted, no + 1
      - torch.maximum(last, first) + 1]
      + torch.maximum(last, first + 1)]
  test_pooling.py::TestRoIPool::test_equals_torchvision_bit_for_bit
    RoIPool: bins do not overlap
      - ((number + 1) * length).ceil()
      + ((number + 1) * length).floor()
    RoIPool: edges are clipped before they are moved to the region
      - (edge + first).clamp(0, size).long()
      + (edge.clamp(0, size) + first).clamp(0, size).long()
    RoIPool: the map's last cell is clipped away
      - (edge + first).clamp(0, size).long()
      + (edge + first).clamp(0, size - (edge is end)).long()
  test_pooling.py::TestRoIAlign::test_values_and_gradients_equal_torchvisions
    RoIAlign: aligned is ignored
      - - (0.5 if aligned else 0.0)
      + - 0.0
    RoIAlign: half a pixel too much where it is not aligned
      - - (0.5 if aligned else 0.0)
      + - 0.5
    RoIAlign: the number of points never adapts
      - length.ceil().clamp(min=0)
      + torch.full_like(length, 2)
    RoIAlign: the mean over points inside alone
      - inside / points.clamp(min=1)
      + inside / inside.sum(-1, keepdim=True).clamp(min=1)
  test_pooling.py::TestRoIAlign::test_half_precision_and_any_memory_format[roi_align_separable]
    RoIAlign: points beyond the edge are not moved to it
      - axes.append((place.clamp(0, size - 1), inside
      + axes.append((place, inside
  test_pooling.py::TestRoIAlign::test_values_and_gradients_equal_torchvisions
    RoIAlign: points outside count
      - inside = (number < points) & (place >= -1) & (place <= size)
      + inside = number < points
    RoIAlign: regions smaller than a cell
      - length if aligned else length.clamp(min=1.0)
      + length
    RoIAlign: a point too many where their number adapts
      - length.ceil().clamp(min=0)
      + (length.floor() + 1).clamp(min=0)
  test_pooling.py::TestPyramid::test_levels_equal_torchvisions_mapper_and_strides_must_be_those_of_a_pyramid
    pyramid: an object of ImageNet's size belongs to P5
      - CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4
      + CANONICAL_SIZE, CANONICAL_LEVEL = 224, 5
    pyramid: levels rounded to the nearest, not down
      - + 1e-6).floor()
      + + 1e-6).round()
  test_pooling.py::TestPyramid::test_equals_torchvisions
    pyramid: regions come back in the order of their levels
      - return torch.cat(parts)[order.argsort()]
      + return torch.cat(parts)
rcnn.py
  test_rcnn.py::test_detects_what_the_steps_by_hand_give
    warp: without context
      - self.config.context * size, fill
      + 0.0, fill
  test_rcnn.py::test_svms_equal_scikit_learn_on_the_papers_examples
    SVM: what overlaps an object by up to a half is a negative
      - negative_iou: float = 0.3
      + negative_iou: float = 0.5
    SVM: features are not scaled
      - return norm / mean if mean > 0 else 1.0
      + return 1.0
    SVM: an object of another class is no negative
      - is_class = objects["labels"][:, None] == torch.arange(1, num_classes)
      + is_class = objects["labels"][:, None] >= torch.ones(num_classes - 1)
  test_rcnn.py::test_detects_what_the_steps_by_hand_give
    SVM: features are scaled in training alone
      - scores = features * self.svm_scale @ self.svm
      + scores = features @ self.svm
  test_rcnn.py::test_box_regressors_equal_scikit_learn
    box regression: learns from far proposals
      - box_iou: float = 0.6
      + box_iou: float = 0.3
faster_rcnn.py
  test_faster_rcnn.py::test_shifted_anchors_lie_around_the_middle_of_their_cells
    anchors: the shift is forgotten
      - (torch.arange(count) + offset) * step
      + torch.arange(count) * step
    anchors: cells column by column
      - indexing="xy"
      + indexing="ij"
  test_faster_rcnn.py::test_anchors_equal_torchvisions
    anchors: all ratios of a size before the next size
      - (tall[:, None] * size).flatten(), (1 / tall[:, None] * size).flatten()
      + (tall * size[:, None]).flatten(), (1 / tall * size[:, None]).flatten()
    anchors: ratios are widths over heights
      - torch.stack([-widths, -heights, widths, heights], dim=1)
      + torch.stack([-heights, -widths, heights, widths], dim=1)
  test_faster_rcnn.py::test_proposals_and_losses_equal_torchvisions[True-one level]
    RPN: a gradient flows through proposals
      - @torch.no_grad()
      -     def filter_proposals(
      + def filter_proposals(
    RPN: negatives are told to be objects
      - (label[chosen] == POSITIVE).to(objectness)
      + torch.ones_like(objectness[chosen])
    RPN: boxes of negatives count, too
      - chosen = torch.cat([positive, negative])
      -             logits
      + chosen = positive = torch.cat([positive, negative])
      +             logits
    RPN: proposals reach beyond the image
      - boxes = clip_boxes(decode_boxes(rpn_outputs.anchors[index], deltas[index]), size)
      + boxes = decode_boxes(rpn_outputs.anchors[index], deltas[index])
    RPN: no object keeps its best anchor
      - config.background_iou, allow_low_quality_matches=True)
      + config.background_iou)
  test_faster_rcnn.py::test_levels_do_not_suppress_each_other
    RPN: levels drop each other's proposals
      - levels.append(torch.full_like(best, level))
      + levels.append(torch.zeros_like(best))
  test_faster_rcnn.py::test_crowds_teach_the_proposer_nothing
    RPN: crowds are background
      - label[in_crowd(anchors, target)] = IGNORED
      + pass
targets.py
  test_targets.py::test_crowds_of_any_type_are_left_out_also_without_a_check
    targets: ~ of integers, an index
      - single = ~target["iscrowd"].bool()
      + single = ~target["iscrowd"]
  test_targets.py::test_other_types_mean_the_same
    targets: masks of 255 stay numbers
      - value if name in ("boxes", "labels") else value.bool()
      + value
training/batches.py
  test_targets.py::test_what_is_read_is_checked_when_it_is_asked_for
    targets: looked at only after images were mirrored
      - target = check_target(target, f"samples[{index}]", size=tuple(image.shape[-2:]))
      + pass
fast_rcnn.py
  test_fast_rcnn.py::test_losses_and_gradients_equal_torchvisions
    Fast R-CNN: the boxes of all classes cost
      - own = deltas[positive, labels[positive]]  # (positives, 4)
      + own, positive = deltas[positive].flatten(0, 1), positive.repeat_interleave(deltas.shape[1])
    Fast R-CNN: boxes of the background cost
      - torch.where(labels > 0)[0]
      + torch.where(labels >= 0)[0]
    Fast R-CNN: the box loss is divided by the positives
      - reduction="sum") / len(labels)
      + reduction="sum") / len(positive)
    Fast R-CNN: objects have no limited share of the batch
      - config.positive_fraction)
      -             chosen = torch.cat([positive, negative]).sort()
      + 1.0)
      +             chosen = torch.cat([positive, negative]).sort()
    Fast R-CNN: objects are no proposals
      - torch.cat([proposed, objects["boxes"].to(proposed)])
      + proposed
  test_fast_rcnn.py::test_detections_equal_torchvisions[0]
    Fast R-CNN: boxes are decoded without weights
      - decode_boxes(boxes, d, config.box_weights)
      + decode_boxes(boxes, d)
  test_published.py::test_regions_are_taken_from_their_own_level
    pyramid: regions are taken from P6, too
      - if name != "pool"]
      + ]
mask_rcnn.py
  test_mask_rcnn.py::test_loss_by_a_loop[sigmoid]
    Mask R-CNN: the mask of another class is taught
      - own = logits[torch.arange(len(labels), device=labels.device), labels]
      + own = logits[torch.arange(len(labels), device=labels.device), labels - 1]
  test_mask_rcnn.py::test_every_variant
    Mask R-CNN: the mask of another class is shown
      - masks = every[torch.arange(len(labels), device=labels.device), labels]
      + masks = every[torch.arange(len(labels), device=labels.device), labels - 1]
  test_mask_rcnn.py::test_aligned_targets_are_the_share_that_is_covered
    Mask R-CNN: targets half a pixel off
      - size, 1.0, aligned=aligned)
      + size, 1.0, aligned=False)
  test_mask_rcnn.py::test_aligned_by_a_loop_over_pixels
    paste: half a pixel off
      - device=mask.device) + 0.5
      + device=mask.device)
  test_mask_rcnn.py::test_equal_to_torchvisions_pixel_by_pixel
    paste, as torchvision: the last row and column are left out
      - min(x2 + 1, size[1]), min(y2 + 1, size[0])
      + min(x2, size[1]), min(y2, size[0])
evaluation.py
  test_evaluation.py::test_the_data_set_counts_and_not_the_image
    AP: the mean over images of each image's
      - **_summarize(curves, rules),
      + **(_summarize(curves, rules) if len(targets) < 2 else {name: sum(getattr(evaluate([d], [t], kind=kind,
      + protocol=protocol), name) for d, t in zip(detections, targets)) / len(targets)
      + for name in _summarize(curves, rules)}),
    AP: images are not ranked together
      - np.argsort(-found.score[d], kind="stable")
      + np.arange(len(d))
  test_evaluation.py::test_a_crowd_forgives_many_detections_inside_it
    recall: crowds are missed, too
      - num_objects=(~ignored).sum(axis=1)
      + num_objects=np.full(len(ignored), len(g))
    COCO: a crowd is one large object
      - crowd = wanted.crowd[g[objects]] & (not rules.of_voc)
      + crowd = wanted.crowd[g[objects]] & False
metrics.py
  test_evaluation.py::test_equal_scores_keep_the_order_of_the_images
    COCO: 100 recalls in place of 101
      - np.linspace(0.0, 1.0, 101)
      + np.linspace(0.0, 1.0, 100)
  test_evaluation.py::test_an_object_is_found_once[coco]
    COCO: an object may be found many times
      - taken[area, threshold, best[area, threshold]] = True
      + pass
  test_evaluation.py::test_an_overlap_equal_to_the_threshold_is_enough
    COCO: the threshold itself is not enough
      - free = (iou[d] >= floor) & ~taken
      + free = (iou[d] > floor) & ~taken
  test_evaluation.py::test_an_object_is_found_once[voc2010]
    VOC: an object may be found many times
      - first = chose & (chose.cumsum(axis=1) == 1)
      + first = chose
  test_metrics.py::test_interpolation_is_the_best_precision_at_this_recall_or_beyond
    AP: the curve is not interpolated
      - return np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
      + return precision
transforms.py
  test_transforms.py::test_without_a_largest_side_it_is_four_times_the_shorter_one
    transforms: slim images grow without end
      - _SLIMMEST = 4  #
      + _SLIMMEST = 4000  #
  test_transforms.py::test_equals_torchvisions_transform
    resize: the caller's target is changed
      - changed = {**target, "boxes": resize_boxes(target["boxes"], old, new)}
      + changed = target; changed["boxes"] = resize_boxes(target["boxes"], old, new)
    resize: the scales of x and y are exchanged
      - torch.stack([horizontal, vertical, horizontal, vertical])
      + torch.stack([vertical, horizontal, vertical, horizontal])
  test_transforms.py::test_the_flipped_box_shows_the_flipped_object
    hflip: width - 1
      - torch.stack([width - x2, y1, width - x1, y2], dim=1)
      + torch.stack([width - 1 - x2, y1, width - 1 - x1, y2], dim=1)
    hflip: masks stay as they are
      - flipped["masks"] = target["masks"].flip(-1)
      + flipped["masks"] = target["masks"]
  test_transforms.py::test_blue_first_and_a_size_at_least
    normalize: the order of channels is not heeded
      - image.flip(0) if self.blue_first else image
      + image
weights.py
  test_fuzzing.py::test_one_wrong_bit_is_never_another_number
    weights: checksums in a file of torch.save are not compared
      - if damaged := archive.testzip():
      + if damaged := None:
  test_fuzzing.py::test_other_weights_are_refused[alexnet]
    weights: nan is read
      - if not value.isfinite().all():
      + if False:
    weights: whole numbers are read as weights
      - if ours.is_floating_point() != theirs.is_floating_point()
      + if False
  test_fuzzing.py::test_a_setting_of_another_type_is_refused
    weights: settings may have any type
      - if not _fits(found[name], hints[name]):
      + if False:
  test_weights.py::test_tensors_whose_numbers_are_not_in_the_file_are_refused
    weights: tensors may claim any size
      - value.nbytes > value.untyped_storage().nbytes()
      + False
  training/test_recipes.py::test_what_is_written_is_read_again
    half precision: variances become 0
      - value.half() if name in learned else value
      + value.half() if value.is_floating_point() else value
training/checkpoints.py
  test_fuzzing.py::test_a_checkpoint_with_one_wrong_bit_is_the_same_or_refused
    checkpoints: checksums are not compared
      - state = read_torch(self.path)
      + state = torch.load(self.path, map_location="cpu", weights_only=True)
  training/test_checkpoints.py::test_other_annotations_are_other_data_and_no_image_is_read
    checkpoints: other annotations are the same data
      - for part in (name, value)]
      + for part in (name,)]
training/loop.py
  training/test_checkpoints.py::test_a_training_that_ended_no_better_than_it_began_replaces_nothing
    trainings: no better is good enough
      - if not last < first:
      + if False:
training/recipes.py
  training/test_recipes.py::test_what_learns_in_fine_tuning
    trainings: the size of a batch stays the detector's
      - finally:
      -             model.transform = transform
      + finally:
      +             pass
    fine-tuning: layers that should stay learn
      - model.backbone.freeze(model.backbone.trainable_layers)
      + model.backbone.freeze(5)
published.py
  test_published.py::test_new_layers_only_where_they_are_asked_for
    published: last layers are drawn at random for any file
      - not (classes and of_coco and new_layers)
      + not classes
  test_published.py::test_published_weights_are_fetched_once_and_have_their_eps
    published: the usual eps for weights that were trained without
      - norm_eps=0.0 if trained_with_zero else 1e-5
      + norm_eps=1e-5
  test_published.py::test_keys_and_shapes_are_torchvisions
    published: the branch's convolutions are numbered from 1
      - int(found[1]) - 1
      + int(found[1])
cache.py
  test_fuzzing.py::test_a_cached_result_with_one_wrong_bit_is_computed_anew
    cache: what was damaged is taken
      - return read_torch(self.folder / path)
      + return torch.load(self.folder / path)
datasets/coco.py
  test_fuzzing.py::test_an_image_that_could_not_be_read_is_refused_before_its_masks_fill_the_memory
    COCO: images of any size may be promised
      - elif height * width > MOST_PIXELS:
      + elif False:
resnet_fpn.py
  test_resnet_fpn.py::test_frozen_batch_normalization
    frozen batch normalization: the mean is added
      - self.bias - self.running_mean * factor
      + self.bias + self.running_mean * factor
    frozen batch normalization: without eps
      - (self.running_var + self.eps).rsqrt()
      + self.running_var.rsqrt()
  test_resnet_fpn.py::test_maps_equal_torchvisions
    frozen batch normalization: the summand is scaled twice when it is folded
      - summand, conv.stride, conv.padding)
      + summand * factor, conv.stride, conv.padding)
    pyramid: coarse maps are not handed on
      - merged[level] = fine + F.interpolate(merged[level + 1], size=fine.shape[2:], mode="nearest")
      + merged[level] = fine
    pyramid: only the next level is handed on
      - for level in reversed(range(len(merged) - 1)):
      + for level in range(len(merged) - 1):
datasets/voc.py
  datasets/test_voc.py::test_by_hand
    VOC: pixels counted from 1
      - box = (xmin - 1, ymin - 1, xmax, ymax)
      + box = (xmin, ymin, xmax + 1, ymax + 1)
datasets/folders.py
  training/test_samples.py::test_boxes_are_clipped_and_those_of_which_little_is_left_are_crowds
    boxes of masks: the last pixel is left out
      - ends = occupied * torch.arange(1, occupied.shape[1] + 1)
      + ends = occupied * torch.arange(occupied.shape[1])
"""
