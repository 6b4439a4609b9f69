"""The painter: light, layout, whole images. What it draws, the stored scenes hold to the byte (test_toytown.py)."""

import numpy as np

from minircnn.datasets.toytown import CLASSES, SUBTYPES
from workshop.toytown import paint_single
from workshop.toytown.background import paint_backdrop
from workshop.toytown.layout import Thing, arrange, sketch_object, visible_masks, without_hidden
from workshop.toytown.photographs import (
    HELD_OUT_PHOTOGRAPHS,
    PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
)
from workshop.toytown.render import Light, Sprite, render
from workshop.toytown.scene import _ground_shadow, compose
from workshop.toytown.single import paint_framed
from workshop.toytown.sketch import Sketch, box, ellipse

LEFT, RIGHT = Light(-0.8, -0.6), Light(0.8, -0.6)


def rng(seed=0):
    return np.random.default_rng(seed)


def sketch_of(*outlines, fill=(200.0, 100.0, 50.0), **options):
    sketch = Sketch()
    sketch.add(fill, *outlines, **options)
    return sketch


def test_mirror_and_tilt_turn_the_object_but_not_the_light():
    flag = sketch_of(box(0, 0, 0.2, 2), box(0, 0, 1, 0.7), shade=0.5)
    plain, mirrored = render(flag, 60, LEFT), render(flag, 60, LEFT, mirror=True)
    np.testing.assert_allclose(plain.alpha, mirrored.alpha[:, ::-1], atol=0.3)
    ball = sketch_of(ellipse(0, 0, 1, 1), shade=0.5, ball=True)
    for light, brighter in ((LEFT, 0), (RIGHT, 1)):
        for mirror in (False, True):
            brightness = np.array_split(render(ball, 40, light, mirror, 0.2).color.sum(axis=2), 2, axis=1)
            assert np.argmax([half.sum() for half in brightness]) == brighter
    upright, turned = render(flag, 60, LEFT), render(flag, 60, LEFT, tilt=np.pi / 2)
    assert upright.size == turned.size[::-1]
    columns = (turned.alpha > 0.5).sum(axis=0)
    assert columns[5] < columns[-6]  # clockwise: the flag, which was above, is on the right now


def test_every_subtype_of_every_class_can_be_drawn_at_every_size():
    seen = set()
    for seed in range(130):
        label = seed % 6 + 1
        sketch, subtype = sketch_object(rng(seed), label)
        assert SUBTYPES[subtype].startswith(CLASSES[label] + "/")
        seen.add(subtype)
        longest = (20.0, 90.0)[seed // 6 % 2]
        sprite = render(sketch, longest, LEFT, bool(seed % 2), 0.1)
        height, width = sprite.size
        assert longest <= max(height, width) <= longest + 5
        assert (sprite.alpha >= 0.5).sum() > 0.06 * longest**2
        assert sprite.color.min() >= 0 and sprite.alpha.max() <= 1
    assert seen == set(range(len(SUBTYPES)))


def test_photographs_are_free_of_our_classes_and_apart():
    assert not set(TRAIN_PHOTOGRAPHS) & set(HELD_OUT_PHOTOGRAPHS)
    assert set(TRAIN_PHOTOGRAPHS) | set(HELD_OUT_PHOTOGRAPHS) == set(PHOTOGRAPHS)
    files = {p.file for p in PHOTOGRAPHS.values()}
    assert not files & {"astronaut.png", "camera.png", "chelsea.png", "lfw_subset.npy"}
    assert all(p.license in ("CC0", "public domain", "no known copyright restrictions") for p in PHOTOGRAPHS.values())


def square(side, x, y, depth, label):
    alpha = np.ones((side, side), np.float32)
    return Thing(Sprite(np.zeros((side, side, 3), np.float32), alpha), x, y, depth, label, 0, False)


def test_near_things_hide_far_ones():
    far, near = square(10, 0, 0, 0.1, 1), square(10, 5, 0, 0.9, 2)
    masks = visible_masks([far, near], 128)
    assert masks[0].sum() == 50 and masks[1].sum() == 100
    assert not (masks[0] & masks[1]).any()
    assert masks[0][:10, :5].all()


def test_things_may_reach_over_every_edge():
    for x, y, seen in ((-4, -7, 18), (124, 0, 40), (0, 126, 20), (-10, 0, 0), (128, 50, 0), (60, 60, 100)):
        assert visible_masks([square(10, x, y, 0.5, 1)], 128)[0].sum() == seen


def test_hidden_objects_are_taken_out_one_at_a_time():
    # The middle one hides the far one; the near one hides the middle one, so when that goes, the far one may stay.
    far, middle = square(10, 0, 0, 0.1, 1), square(10, 1, 1, 0.5, 2)
    near, distractor = square(10, 2, 2, 0.8, 3), square(10, 100, 100, 0.9, 0)
    # 36 pixels of `far` are too few even then.
    assert [t.label for t in without_hidden([far, middle, near, distractor], 128)] == [3, 0]
    far = square(13, 0, 0, 0.1, 1)  # 69 of 169 pixels beside `near`, 50 beside `near` and `middle`
    assert [t.label for t in without_hidden([far, middle, near], 128)] == [1, 3]


def test_arrange_keeps_its_promises():
    for seed in range(10):
        generator = rng(seed)
        backdrop = paint_backdrop(generator, 128, LEFT, TRAIN_PHOTOGRAPHS)
        things = arrange(generator, backdrop, 128, LEFT)
        assert [t.depth for t in things] == sorted(t.depth for t in things)
        masks = visible_masks(things, 128)
        objects = [(t, m) for t, m in zip(things, masks, strict=True) if t.label]
        assert 1 <= len(objects) <= 6
        for thing, mask in objects:
            assert mask.sum() >= max(40, 0.35 * thing.full_area)
            assert 20 <= max(thing.sprite.size) <= 95
            if thing.grounded:
                assert backdrop.horizon is not None
                assert thing.y + thing.sprite.size[0] > backdrop.horizon - 5


def test_ground_shadows_fall_away_from_the_light():
    for light, darker in ((LEFT, 1), (RIGHT, 0)):
        image = np.full((128, 128, 3), 200, np.float32)
        _ground_shadow(image, square(30, 49, 60, 0.5, 1), light, 0.5)
        beside = [image[:, :47].mean(), image[:, 81:].mean()]
        assert np.argmin(beside) == darker
        assert image.min() > 0 and image.max() == 200


def test_masks_are_where_the_objects_are():
    """Painted with and without its things, an image differs on their masks and, shadows aside, only there."""
    generator = rng(11)
    light = Light.random(generator)
    backdrop = paint_backdrop(generator, 128, light, TRAIN_PHOTOGRAPHS)
    things = arrange(generator, backdrop, 128, light)
    full = compose(rng(1), backdrop, things, light).astype(float)
    empty = compose(rng(1), backdrop, [], light).astype(float)
    objects = np.any(visible_masks(things, 128), axis=0)
    change = np.abs(full - empty).mean(axis=2)
    assert change[objects].mean() > 20
    assert np.median(change[~objects]) < 2


def test_single_objects_are_centered_well_framed_and_whole(size=64):
    for seed in range(8):
        thing, image = paint_framed(rng(seed), size, TRAIN_PHOTOGRAPHS)
        mask = thing.mask(size)
        assert mask.sum() == thing.full_area  # nothing outside the image
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert 0.5 * size <= max(height, width) <= 0.93 * size
        assert abs((rows[0] + rows[-1] + 1) / 2 - size / 2) < 0.1 * size
        assert abs((columns[0] + columns[-1] + 1) / 2 - size / 2) < 0.1 * size
        assert image.shape == (size, size, 3)
        np.testing.assert_array_equal(image, paint_single(seed, size)[0])
        assert (thing.label, thing.subtype) == paint_single(seed, size)[1:]
