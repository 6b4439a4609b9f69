"""``minircnn benchmark``."""

from pathlib import Path
from typing import Annotated

import typer


def benchmark(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE]...", help="Which; all if none is named.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the table here.")] = None,
    repeats: Annotated[int, typer.Option(min=2, help="Timed pairs for each row.")] = 15,
) -> None:
    """Compare our operations with the reference implementations.

    A ratio is our time divided by the reference's, both measured in turn in one run: the median, with the middle half
    of all pairs beside it. Below 1 ours is faster. Where it is stated, memory is the largest that ours holds at a time
    divided by the reference's. The suites are boxes, pooling, evaluation,
    selective_search, detectors and published; selective_search needs OpenCV: pip install -e ".[benchmark]".
    """
    # Imported here, so that the other commands do not wait for what only this one needs.
    from minircnn.benchmarks.run import SUITES, run_suites, write_measurements

    if unknown := set(suites or ()) - set(SUITES):
        raise typer.BadParameter(f"there is no suite {sorted(unknown)[0]!r}; there are {', '.join(SUITES)}")
    if json_file and json_file.is_dir():
        raise typer.BadParameter(f"--json {json_file}: this is a folder; name a file in it")
    if json_file and not json_file.parent.is_dir():
        raise typer.BadParameter(f"--json {json_file}: the folder {json_file.parent} does not exist")
    measurements = run_suites(suites or SUITES, repeats, report=typer.echo)
    if json_file:
        write_measurements(measurements, json_file)
        typer.echo(f"written to {json_file}")
    if not all(m.agrees for m in measurements):
        typer.echo("Some results differ from the reference's: see the last column.", err=True)
        raise typer.Exit(1)
