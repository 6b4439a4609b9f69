"""Every picture that the notebooks show.

Functions that draw return matplotlib axes, so that a reader can add to them; :func:`show` puts the result into the
notebook with a text that says what can be seen. Pixel (0, 0) covers the square from (0, 0) to (1, 1), as everywhere in
minircnn: a box is drawn exactly along the edges of the pixels that it holds (matplotlib on its own would shift pictures
by half a pixel against their boxes). Inputs are never changed, and neither are matplotlib's global settings.
"""

from minircnn.plotting.alignment import plot_misalignment
from minircnn.plotting.charts import plot_label_map, plot_pr_curves
from minircnn.plotting.colours import class_colour, label_map_colours, text_colour
from minircnn.plotting.display import show
from minircnn.plotting.history import plot_generations, plot_history
from minircnn.plotting.networks import contact_sheet, plot_filters, plot_losses, plot_maps
from minircnn.plotting.page import Panel, Section, panel_png, picture_page
from minircnn.plotting.pictures import (
    draw_objects,
    image_grid,
    plot_detections,
    plot_proposals,
    show_image,
)
from minircnn.plotting.regions import draw_bins, draw_grid, mark_cells, plot_cells

__all__ = [
    "Panel",
    "Section",
    "class_colour",
    "contact_sheet",
    "draw_bins",
    "draw_grid",
    "draw_objects",
    "image_grid",
    "label_map_colours",
    "mark_cells",
    "panel_png",
    "picture_page",
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
    "show",
    "show_image",
    "text_colour",
]
