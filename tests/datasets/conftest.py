"""Small data sets on disk, each in the layout of its publisher."""

import struct
import zlib

import numpy as np
from PIL import Image

VOC_SIZE = (12, 20)  # (height, width) of the images
PEOPLE_SIZE = (14, 22)
CELLS_SIZE = (10, 16)


def an_object(name="dog", box=(3, 2, 7, 6), difficult="0", extra=""):
    names = ("xmin", "ymin", "xmax", "ymax")
    sides = "".join(f"<{side}>{value}</{side}>" for side, value in zip(names, box, strict=True))
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return f"<object><name>{name}</name>{flag}<bndbox>{sides}</bndbox>{extra}</object>"


def xml(*objects, size=VOC_SIZE):
    stated = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{stated}{''.join(objects)}</annotation>"


def write_voc(root, annotations, splits=None):
    """A folder of VOC's layout, of XML by name."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main", "SegmentationObject"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number, (name, text) in enumerate(annotations.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (*VOC_SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
    for split, names in (splits or {"trainval": list(annotations)}).items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return root


def write_voc_mask(root, name, values):
    mask = Image.fromarray(np.asarray(values, dtype=np.uint8))
    mask.putpalette([(17 * n) % 256 for n in range(768)])  # a palette, whose colors say nothing about the numbers
    mask.save(root / "SegmentationObject" / f"{name}.png")


def write_people(root, masks, image=None):
    """A folder of Penn-Fudan's layout, of mask arrays by name."""
    (root / "PNGImages").mkdir(parents=True, exist_ok=True)
    (root / "PedMasks").mkdir(exist_ok=True)
    for number, (name, values) in enumerate(masks.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (*values.shape, 3), dtype=np.uint8)
        Image.fromarray(pixels if image is None else image).save(root / "PNGImages" / f"{name}.png")
        mask = Image.fromarray(values.astype(np.uint8))
        mask.putpalette([(31 * n + 5) % 256 for n in range(768)])
        mask.save(root / "PedMasks" / f"{name}_mask.png")
    return root


def three_people():
    """Pedestrian 1 has two pieces, 2 stands in a corner, 3 is one pixel."""
    values = np.zeros(PEOPLE_SIZE, dtype=int)
    values[2:6, 3:5], values[8, 4] = 1, 1
    values[10:, 18:] = 2
    values[0, 0] = 3
    return values


def block(rows, columns, value=255):
    values = np.zeros(CELLS_SIZE, dtype=np.uint8)
    values[slice(*rows), slice(*columns)] = value
    return values


def write_cell(root, name, *masks):
    """An image's folder in the set's layout; masks are called a.png, b.png …"""
    (root / name / "images").mkdir(parents=True)
    (root / name / "masks").mkdir()
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*CELLS_SIZE, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(root / name / "images" / f"{name}.png")
    for letter, values in zip("abcdefgh", masks, strict=False):
        Image.fromarray(values).save(root / name / "masks" / f"{letter}.png")
    return pixels


def png_that_claims(width, height):
    """The beginning of a PNG: a correct header, then a few bytes that hold next to nothing."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(100))))
    checked = [(struct.pack(">I", len(data)), kind + data) for kind, data in chunks]
    parts = [length + content + struct.pack(">I", zlib.crc32(content)) for length, content in checked]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
