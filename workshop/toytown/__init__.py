"""Toy Town: painted scenes with exact instance masks, in COCO format.

Six classes whose shapes differ as real classes do, so that anchors, masks and metrics have something to teach, in
images small enough to train on without a GPU. A scene is painted from nothing but its seed:

    sketch    an object as a list of shapes, back to front       person, car, cat, tree, house, balloon; distractors
    render    the sketch drawn at four times its size, reduced   render, paint, palette
    arrange   where the objects stand, who hides whom            layout
    compose   background, shadows, objects, camera               photographs, background, scene

`single` paints one object in the middle, for learning to classify; `build` writes the fixed set of data/toytown.
"""

from workshop.toytown.build import SPLITS, build
from workshop.toytown.scene import Scene, paint_scene
from workshop.toytown.single import paint_single

__all__ = ["SPLITS", "Scene", "build", "paint_scene", "paint_single"]
