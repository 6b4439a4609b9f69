"""Where the public data sets are that this project reads: the table behind ``minircnn data fetch``.

Nothing is fetched or unpacked here: browsers, curl, tar and unzip do that better. docs/data_sets.md says the same, and
a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"  # the host that torchvision takes them from
_COCO = "http://images.cocodataset.org"


@dataclass(frozen=True)
class Source:
    """What to know before fetching a data set.

    Attributes:
        archives: The address and the size of each file.
        licence: Under which terms it is published.
        unpack: The command that unpacks the files, in the folder where they lie.
        options: What follows ``minircnn data check`` then.
    """

    archives: dict[str, str]
    licence: str
    unpack: str
    options: str

    def lines(self) -> list[str]:
        """What there is to say, in three lines."""
        return [
            f"where: {', '.join(f'{url} ({size})' for url, size in self.archives.items())}",
            f"licence: {self.licence}",
            f"unpack: `{self.unpack}`; then `minircnn data check {self.options}` looks at it",
        ]


SOURCES = {
    "voc": Source(
        {
            f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar": "460 MB",
            f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar": "451 MB",
            f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar": "2.0 GB",
        },
        "none stated for the annotations; the images are from Flickr, under its terms of use",
        'for file in VOC*.tar; do tar -xf "$file"; done',
        "voc --root VOCdevkit/VOC2007",
    ),
    "pennfudan": Source(
        {"https://www.cis.upenn.edu/~jshi/ped_html/PennFudanPed.zip": "54 MB"},
        "none stated; cite the paper",
        "unzip -q PennFudanPed.zip",
        "pennfudan --root PennFudanPed",
    ),
    "nuclei": Source(
        {"https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip": "about 80 MB"},
        "CC0, public domain",
        "unzip -q stage1_train.zip -d stage1_train",
        "nuclei --root stage1_train",
    ),
    "coco": Source(
        {
            f"{_COCO}/annotations/annotations_trainval2017.zip": "241 MB",
            f"{_COCO}/zips/val2017.zip": "0.8 GB",
            f"{_COCO}/zips/train2017.zip": "19 GB",
        },
        "annotations CC BY 4.0; the images are from Flickr, each under the licence that the annotations name",
        "unzip -q '*2017.zip'",
        "coco --root val2017 --annotations annotations/instances_val2017.json",
    ),
}
