"""What comes out while a command runs, and how a command is described: what all commands share."""

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ecgcmr import files, store
from ecgcmr.commands import progress


def lazy(name: str) -> Any:
    """A module of the package, imported when a command needs it: Ray and Aim take seconds."""
    return importlib.import_module(f"ecgcmr.{name}")


class Console:
    """What comes out while a command runs: results on stdout, the display and notes on stderr."""

    def __init__(self, args: argparse.Namespace, out: progress.Streams) -> None:
        folders = [path for name in ("runs", "cohort") if (path := getattr(args, name, None))]
        self.out = out
        self.display = progress.Display(folders, out.person)
        self.cpus = getattr(args, "cpus", None)
        self.ray = False

    def say(self, text: str = "") -> None:
        """Write a line of result."""
        print(text, file=self.out.results, flush=True)

    def note(self, text: str) -> None:
        """Write a line that belongs to no result."""
        print(text, file=self.out.person, flush=True)

    def need_ray(self) -> None:
        """Join the cluster at hand, or start Ray on this machine, once per command.

        Finished work never starts it.
        """
        if not self.ray:
            lazy("runtime.cluster").start(cpus=self.cpus, last_words=self.note)
            self.ray = True

    def close(self) -> None:
        """Leave the cluster, or stop what was started here."""
        if self.ray:
            lazy("runtime.cluster").stop()


@contextlib.contextmanager
def counted(
    args: argparse.Namespace, console: Console, title: str, total: int, unit: str = "ECGs"
) -> Iterator[Callable[[int], None]]:
    """Show a stage of so many ECGs or rows; the function that is yielded gets how many are done."""
    record = store.Progress(args.runs, args.name, total, unit)
    with console.display.stage(title):
        try:
            yield record.update
        finally:
            record.close()
            files.vacate([record.path.parent])


def command(
    commands: Any,
    name: str,
    function: Callable[..., int],
    text: str,
    examples: Mapping[str, str],
    *,
    space: bool = False,
    trains: bool = False,
    folders: bool = True,
) -> argparse.ArgumentParser:
    """Add a command with what all commands share.

    One without `folders` knows neither cohort nor runs and leaves no log.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name.split()[-1],
        help=text,
        description=function.__doc__,
        epilog=f"example:\n  {examples[name]}",
        # An example has to survive being copied.
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(function=function, name=name)
    if space:
        parser.add_argument(
            "space", type=Path, help="search-space file, e.g. search_spaces/table3.py"
        )
    if folders:
        parser.add_argument(
            "--cohort",
            type=Path,
            default=Path("cohort"),
            help="the cohort's folder (default: cohort)",
        )
        parser.add_argument(
            "--runs", type=Path, default=Path("runs"), help="where runs are kept (default: runs)"
        )
    if trains:
        parser.add_argument("--device", help="cpu, cuda, cuda:1 … (default: a GPU if there is one)")
        choices = ("auto", "float32", "bfloat16")
        parser.add_argument(
            "--precision",
            choices=choices,
            default="auto",
            help="auto: bfloat16 where the device has it",
        )
        parser.add_argument("--cpus", type=whole, help="cores for a local Ray (default: all)")
    return parser


def whole(text: str) -> int:
    """A positive whole number."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)
