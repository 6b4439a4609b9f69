"""The command line: ``minircnn COMMAND``, one file a command; the detector is an argument.

Whatever takes long to import is imported inside of the commands, so that neither help nor refusals wait for PyTorch.
"""

from typing import Annotated

import typer

from minircnn import __version__
from minircnn.cli import course, data, demo, detect, evaluate, train
from minircnn.cli.common import OneLineErrors

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain messages, which may be searched, piped and read aloud
)
for command in (train.train, evaluate.evaluate, detect.detect):
    app.command(no_args_is_help=True)(command)
app.command()(demo.demo)
app.add_typer(data.app, name="data")
app.add_typer(course.app, name="course")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"minircnn {__version__}")
        raise typer.Exit


@app.callback()
def main(version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False) -> None:
    """From R-CNN to Mask R-CNN: detectors built from scratch, and measured."""
