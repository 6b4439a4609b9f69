"""From R-CNN to Mask R-CNN, one idea a file, in the order in which history had them."""

__version__ = "0.1.0"
