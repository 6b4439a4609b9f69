"""The painter: light, layout, whole images. What it draws, the stored scenes hold to the byte (test_toytown.py)."""

import numpy as np

from workshop.toytown import paint_single
from workshop.toytown.background import paint_backdrop
from workshop.toytown.layout import Thing, arrange, visible_masks, without_hidden
from workshop.toytown.photographs import HELD_OUT_PHOTOGRAPHS, PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from workshop.toytown.render import Light, Sprite, render
from workshop.toytown.scene import compose
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


def test_photographs_are_free_of_our_classes_and_apart():
    assert not set(TRAIN_PHOTOGRAPHS) & set(HELD_OUT_PHOTOGRAPHS)
    assert set(TRAIN_PHOTOGRAPHS) | set(HELD_OUT_PHOTOGRAPHS) == set(PHOTOGRAPHS)
    files = {p.file for p in PHOTOGRAPHS.values()}
    assert not files & {"astronaut.png", "camera.png", "chelsea.png", "lfw_subset.npy"}
    assert all(p.license in ("CC0", "public domain", "no known copyright restrictions") for p in PHOTOGRAPHS.values())


def square(side, x, y, depth, label):
    alpha = np.ones((side, side), np.float32)
    return Thing(Sprite(np.zeros((side, side, 3), np.float32), alpha), x, y, depth, label, 0, False)


def test_near_things_hide_far_ones_and_things_may_reach_over_every_edge():
    far, near = visible_masks([square(10, 0, 0, 0.1, 1), square(10, 5, 0, 0.9, 2)], 128)
    assert (far.sum(), near.sum(), (far & near).sum()) == (50, 100, 0) and far[:10, :5].all()
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


def test_scenes_keep_their_promises_and_masks_are_where_the_objects_are():
    """Painted with and without its things, an image differs on their masks and, shadows aside, only there."""
    for seed in range(5):
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
            assert not thing.grounded or thing.y + thing.sprite.size[0] > backdrop.horizon - 5
        full, empty = (compose(rng(1), backdrop, shown, LEFT).astype(float) for shown in (things, []))
        change, covered = np.abs(full - empty).mean(axis=2), np.any(masks, axis=0)
        assert change[covered].mean() > 20
        assert np.median(change[~covered]) < 2


def test_single_objects_are_centered_well_framed_and_whole(size=64):
    for seed in range(4):
        thing, image = paint_framed(rng(seed), size, TRAIN_PHOTOGRAPHS)
        mask = thing.mask(size)
        assert mask.sum() == thing.full_area  # nothing outside the image
        (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis=axis))[[0, -1]] for axis in (1, 0))
        assert 0.5 * size <= max(bottom - top, right - left) + 1 <= 0.93 * size
        assert max(abs(top + bottom + 1 - size), abs(left + right + 1 - size)) < 0.2 * size
        assert image.shape == (size, size, 3)
        np.testing.assert_array_equal(image, paint_single(seed, size)[0])
        assert (thing.label, thing.subtype) == paint_single(seed, size)[1:]
