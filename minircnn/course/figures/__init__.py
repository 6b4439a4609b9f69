"""Every figure that the notebooks show, those of :mod:`minircnn.plotting` included.

Functions that draw return matplotlib axes, so that you can add to them; :func:`show` puts the result into the notebook
with a text that says what can be seen.
"""

from minircnn.course.figures.alignment import plot_misalignment
from minircnn.course.figures.boxes import (
    boxes_on_grid,
    judged_detections,
    largest_inside,
    moved_boxes,
    moved_mask,
    neighbors,
    refined_box,
    suppression_rounds,
    three_averages,
)
from minircnn.course.figures.charts import (
    label_map_colors,
    plot_detections,
    plot_label_map,
    plot_losses,
    plot_pr_curves,
    plot_proposals,
)
from minircnn.course.figures.display import show
from minircnn.course.figures.history import plot_generations, plot_history
from minircnn.course.figures.masks import (
    ablation_dots,
    boxes_against_masks,
    detection_stages,
    mask_gallery,
    mask_losses,
    mask_targets,
    masks_of_classes,
    pasted_mask,
    pasted_ones,
    tallest,
    threshold_curve,
    worst_cases,
)
from minircnn.course.figures.networks import contact_sheet, plot_filters, plot_maps
from minircnn.course.figures.rcnn import (
    ablation_bars,
    confident_errors,
    error_shares,
    hard_negatives,
    loss_curve,
    proposal_labels,
    refined_boxes,
    scores_before_and_after,
    time_bar,
)
from minircnn.course.figures.regions import draw_bins, draw_grid, mark_cells, plot_cells
from minircnn.course.figures.start_here import corner_of_box, four_tasks, shapes_and_sizes
from minircnn.plotting import (
    class_color,
    draw_box,
    draw_labels,
    draw_masks,
    draw_objects,
    image_grid,
    render_png,
    show_image,
    text_color,
)

__all__ = [
    "ablation_bars",
    "ablation_dots",
    "boxes_against_masks",
    "boxes_on_grid",
    "class_color",
    "confident_errors",
    "contact_sheet",
    "corner_of_box",
    "detection_stages",
    "draw_bins",
    "draw_box",
    "draw_grid",
    "draw_labels",
    "draw_masks",
    "draw_objects",
    "error_shares",
    "four_tasks",
    "hard_negatives",
    "image_grid",
    "judged_detections",
    "label_map_colors",
    "largest_inside",
    "loss_curve",
    "mark_cells",
    "mask_gallery",
    "mask_losses",
    "mask_targets",
    "masks_of_classes",
    "moved_boxes",
    "moved_mask",
    "neighbors",
    "pasted_mask",
    "pasted_ones",
    "plot_cells",
    "plot_detections",
    "plot_filters",
    "plot_generations",
    "plot_history",
    "plot_label_map",
    "plot_losses",
    "plot_maps",
    "plot_misalignment",
    "plot_pr_curves",
    "plot_proposals",
    "proposal_labels",
    "refined_box",
    "refined_boxes",
    "render_png",
    "scores_before_and_after",
    "shapes_and_sizes",
    "show",
    "show_image",
    "suppression_rounds",
    "tallest",
    "text_color",
    "three_averages",
    "time_bar",
    "threshold_curve",
    "worst_cases",
]
