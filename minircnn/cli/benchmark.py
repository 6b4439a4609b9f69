"""``minircnn benchmark``."""

from pathlib import Path
from typing import Annotated

import typer

from minircnn.cli.outputs import Output, check_outputs


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
    from minircnn.benchmarks import NAMES

    if unknown := set(suites or ()) - set(NAMES):
        raise typer.BadParameter(f"there is no suite {sorted(unknown)[0]!r}; there are {', '.join(NAMES)}")
    check_outputs([Output("--json", json_file)] if json_file else [])
    # Imported here, so that the other commands do not wait for what only this one needs.
    from minircnn.benchmarks.run import SUITES, run_suites, write_measurements

    measurements = run_suites(suites or SUITES, repeats, report=typer.echo)
    if json_file:
        write_measurements(measurements, json_file)
        typer.echo(f"written to {json_file}")
    if not all(m.agrees for m in measurements):
        typer.echo("Some results differ from the reference's: see the last column.", err=True)
        raise typer.Exit(1)
