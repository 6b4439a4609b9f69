"""A check for each exercise of the notebooks: ``nms = check.nms(nms)``. A module for each notebook.

A check prints one line, and returns your function if it is right, else the package's, so that the rest of the notebook
runs on your code as far as you have written it.
"""
