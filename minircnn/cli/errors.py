"""Errors as one line for people, and as an exit status for programs."""

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

import typer
from typer.core import TyperGroup

from minircnn.files import lacks_memory, printable

INTERRUPTED = 130  # what shells report of a program that Ctrl-C has ended


class RefusedError(Exception):
    """What was asked for cannot be done as it was asked; the message says why, and what to do. Exit status 2."""


def echo(*lines: str, err: bool = False) -> None:
    """Prints lines. Names in them, of files, classes and tensors, come from anywhere and do nothing to a terminal."""
    for line in lines:
        typer.echo(printable(line), err=err)


class NoMemoryError(ValueError):
    """There is not as much memory as was needed."""


@contextmanager
def naming_memory() -> Iterator[None]:
    """Gives one name to what Python, NumPy and PyTorch raise where there is no memory left.

    Raises:
        NoMemoryError: instead of a MemoryError or a RuntimeError about memory, of the CPU or of a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            raise NoMemoryError("there is not enough memory for this; smaller images and batches need less") from error
        raise


class OneLineErrors(TyperGroup):
    """Commands whose errors reach the user as one line ``Error: …``, not as a traceback.

    That goes for :class:`RefusedError` (exit status 2) and for what the package raises by contract (exit status 1):
    ``ValueError``, with bad weights, bad data sets and a lack of memory among them, ``OSError`` and
    ``FloatingPointError``. Ctrl-C and a worker process that was killed print a line, too, and so does each warning.
    Anything else is a fault in the program and keeps its traceback.
    """

    def main(self, *arguments: object, **options: object) -> object:
        """Runs the program; that its own help could not be printed, on a full disk, is a line, too."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            sys.exit(f"Error: {_in_words(error)}")

    def invoke(self, ctx: typer.Context) -> object:
        """Runs the command that was asked for."""
        if hasattr(sys.stdout, "reconfigure"):  # names of files may hold letters that a terminal or a pipe cannot take
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with warnings.catch_warnings(), naming_memory():
                warnings.showwarning = lambda message, *_: echo(f"Warning: {message}", err=True)
                return super().invoke(ctx)
        except RefusedError as error:
            message, status = f"Error: {error}", 2
        except BrokenPipeError:  # the reader of our output has seen enough
            raise
        except (ValueError, OSError, FloatingPointError) as error:
            message, status = f"Error: {_in_words(error)}", 1
        except BrokenExecutor:
            message, status = "Error: a worker process was ended, perhaps for lack of memory; try it again", 1
        except KeyboardInterrupt:
            hint = " With --resume the same command goes on from there." if ctx.invoked_subcommand == "train" else ""
            message, status = f"Stopped.{hint}", INTERRUPTED
        echo(*message.split("\n"), err=True)
        raise typer.Exit(status)


def _in_words(error: Exception) -> str:
    """What an error says; of the operating system's the file first, as in all messages, and not its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return str(error)
