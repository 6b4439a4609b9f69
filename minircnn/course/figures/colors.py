"""Colors of the figures, the same for the same thing in all notebooks."""

from minircnn.plotting import Color

BLUE, ORANGE, GREEN, RED, PURPLE = "#1f6fb4", "#d9730d", "#2a7a64", "#c22f2f", "#7a4fa3"
GRAY, SAND, LIGHT_BLUE = "#8a8a8a", "#d9c27a", "#7fb2dd"
YELLOW, LIME, PINK = "#ffd92f", "#5dff5d", "#ff5050"  # bright enough for lines on photographs
WHITE: Color = (0.97, 0.97, 0.97)
EXACT: Color = (1.0, 0.6, 0.0)  # edges of a region as they are
POOLED: Color = (0.0, 0.85, 1.0)  # edges of the whole cells that RoIPool takes
ROUNDED_DOWN: Color = (1.0, 0.35, 0.85)  # edges rounded down, as the story of RoIPool has them
PALE = {BLUE: "#cfe0f3", ORANGE: "#f6d9bd", GREEN: "#cfe6dc", GRAY: "#eeeeee", RED: "#f3cfcf"}  # insides of blocks
