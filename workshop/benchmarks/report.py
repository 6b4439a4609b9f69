"""What a benchmark found: tables and a figure for pages, and what has become slower since another one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workshop.pages import as_markdown

Record = Mapping[str, Any]
SLOWER = 1.15  # times the stored ratio; less can be chance
IN_SHORT = (
    "box_iou", "nms, 2000", "batched_nms, 2000", "warp_regions, 200", "roi_pool, 2000", "roi_pool + gradient, 2000",
    "roi_align, 512 of 7², ratio 2", "roi_align + gradient, 512 of 7², ratio 2", "paste_masks, 100",
    "Faster R-CNN, an image", "Faster R-CNN, losses and gradients", "Mask R-CNN, an image",
    "Mask R-CNN, losses and gradients", "published Mask R-CNN",
)  # fmt: skip
"""How the rows begin that the README shows, beside all in which ours is slower."""
FIGURE = "![Ratios of our time to the reference's, shares of the layers in whole steps, and growth of time with work]"


def summary(record: Record) -> list[str]:
    """The paragraphs of the README's part."""
    slow = {m["name"] for m in record["measurements"] if m["ratio"] >= SLOWER}
    shown = [m for m in record["measurements"] if m["name"].startswith(IN_SHORT) or m["name"] in slow]
    return [as_markdown(ratios(shown)), made(record)]


def details(record: Record) -> list[str]:
    """Those of the page's part."""
    return [
        f"{FIGURE}(benchmark.png)",
        made(record),
        "## Against the references",
        as_markdown(ratios(record["measurements"], spread=True)),
        "## From the command to the answer",
        as_markdown(start(record["starts"])),
        "## Whole steps",
        as_markdown(steps(record["shares"])),
        "## Growth",
        as_markdown(growth(record["growth"])),
    ]


def made(record: Record) -> str:
    """On what machine, with what versions."""
    return (
        f"Measured on {record['cores']} cores of {record['processor']} with Python {record['python']}, PyTorch "
        f"{record['torch']}, torchvision {record['torchvision']}."
    )


def ratios(measurements: Sequence[Record], spread: bool = False) -> list[list[str]]:
    """A row for each operation, a column for each number of threads; perhaps with the middle half, and memory."""
    threads = sorted({m["threads"] for m in measurements})
    head = ["our time / the reference's", *(f"{n} thread{'s' if n > 1 else ''}" for n in threads)]
    rows = [[*head, *(["memory", "against"] if spread else [])]]
    for name in dict.fromkeys(m["name"] for m in measurements):
        own = {m["threads"]: m for m in measurements if m["name"] == name}
        low_high = "{ratio:.2f} ({low:.2f} – {high:.2f})" if spread else "{ratio:.2f}"
        row = [name, *(low_high.format(**own[n]) if n in own else "" for n in threads)]
        first = next(iter(own.values()))
        memory = f"{first['ours_mb'] / first['theirs_mb']:.2f}" if first["ours_mb"] else ""
        rows.append([*row, *([memory, first["reference"]] if spread else [])])
    return rows


def start(found: Sequence[Sequence[Any]]) -> list[list[str]]:
    """A row for each program: its ratio to importing torch and torchvision, and its seconds."""
    head = ["", "time / that of `import torch, torchvision`", "seconds"]
    return [head, *([name, f"{ratio:.2f}", f"{seconds:.1f}"] for name, ratio, seconds in found)]


def steps(shares: Sequence[Record]) -> list[list[str]]:
    """A row for each step: its time, that of its layers alone, what comes on top, Python's share, and the stages'."""
    rows = [["", "ms", "layers alone, ms", "on top, %", "Python, %", "most of the rest, % of the step"]]
    for one in shares:
        stages = sorted(((share, name) for name, share in one["stages"].items() if name != "layers"), reverse=True)
        most = ", ".join(f"{name} {share:.0f}" for share, name in stages[:3])
        numbers = (f"{one[key]:.0f}" for key in ("overhead", "python"))
        rows.append([one["name"], f"{one['ms']:.1f}", f"{one['floor_ms']:.1f}", *numbers, most])
    return rows


def growth(found: Sequence[Record]) -> list[list[str]]:
    """A row for each operation: the exponents of time and memory beside that of the work, and the largest case."""
    rows = [["", "from – to", "work", "time", "memory", "seconds at most", "MB at most"]]
    for one in found:
        counts = f"{one['counts'][0]:,} – {one['counts'][-1]:,} {one['what']}"
        exponents = (f"{value:g}" for value in (one["most"], *one["exponents"]))
        rows.append([one["name"], counts, *exponents, f"{one['ms'][-1] / 1000:.3g}", f"{one['mb'][-1]:,.0f}"])
    return rows


def slower(stored: Record, found: Record) -> dict[str, str]:
    """The rows whose ratio is worse than the stored one by 15 %, by name, in words.

    The reference runs beside ours each time, so that another machine hardly matters. Rows that are not stored are new.
    """
    before, worse = {(m["name"], m["threads"]): m["ratio"] for m in stored["measurements"]}, {}
    for m in found["measurements"]:
        old = before.get((m["name"], m["threads"]))
        if old is not None and m["ratio"] > SLOWER * old:
            worse[m["name"]] = f"{m['name']}, {m['threads']} threads: {m['ratio']:.2f}, stored is {old:.2f}"
    return worse


def draw(record: Record) -> Figure:
    """Ratios, whole steps and growth, side by side."""
    names = list(dict.fromkeys(m["name"] for m in record["measurements"]))
    figure = Figure(figsize=(16, 0.24 * len(names) + 1.5), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(5, 4, 5))
    _draw_ratios(left, record["measurements"], names)
    _draw_steps(middle, record["shares"])
    _draw_growth(right, record["growth"])
    return figure


def _draw_ratios(ax: Axes, measurements: Sequence[Record], names: Sequence[str]) -> None:
    threads = sorted({m["threads"] for m in measurements})
    for number, count in enumerate(threads):
        own = [m for m in measurements if m["threads"] == count]
        y = [names.index(m["name"]) + 0.3 * (number - (len(threads) - 1) / 2) for m in own]
        ratio, low, high = (np.array([m[key] for m in own]) for key in ("ratio", "low", "high"))
        label = f"{count} thread{'s' if count > 1 else ''}"
        ax.errorbar(ratio, y, xerr=np.clip([ratio - low, high - ratio], 0, None), fmt="o", markersize=4, label=label)
    ax.axvline(1, color="0.4", linewidth=1)
    ax.set(title="our time / the reference's", xscale="log", xlabel="below 1 ours is faster")
    ticks = (0.1, 0.2, 0.5, 1, 2)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    ax.set_xticks([], minor=True)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.legend(loc="lower left", fontsize=8)
    ax.grid(axis="x", alpha=0.3)


def _draw_steps(ax: Axes, shares: Sequence[Record]) -> None:
    names = [one["name"].replace(", ", "\n") for one in shares]
    layers = np.array([100 / (1 + one["overhead"] / 100) for one in shares])
    ax.barh(names, layers, label="layers alone")
    ax.barh(names, 100 - layers, left=layers, color="0.75", label="on top")
    ax.tick_params(axis="y", labelsize=8)
    ax.set(title="a whole step", xlabel="percent of its time", xlim=(0, 100))
    ax.invert_yaxis()
    ax.legend(loc="lower left", fontsize=8)


def _draw_growth(ax: Axes, found: Sequence[Record]) -> None:
    for number, one in enumerate(found):
        name = f"{one['name']}: {one['what']}, exponent {one['exponents'][0]:g}"
        ax.plot(one["counts"], one["ms"], marker="osD^v"[number % 5], markersize=4, label=name)
    ax.set(title="growth", xscale="log", yscale="log", xlabel="how many", ylabel="milliseconds")
    ax.grid(alpha=0.3)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), fontsize=8)
