"""What commands that read recordings share: the options that say what a file does not, a network
that segments stacks, and the line that counts what was passed over.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgcmr.commands.console import Console, lazy


def reading(parser: argparse.ArgumentParser) -> None:
    """Add what may be declared of ECGs that do not state it."""
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="sampling rate of ECGs that state none"
    )
    parser.add_argument(
        "--unit",
        metavar="UNIT",
        help="unit of the numbers of ECGs that state none: mV, uV, V, or one count as 4.88uV",
    )
    words = "leads in the order stored, of ECGs that name none, e.g. I,II,V1 (- for another)"
    parser.add_argument("--leads", metavar="NAMES", help=words)


def declaration(args: argparse.Namespace) -> Any:
    """What the options declare."""
    return lazy("raw").declaration(args.rate, args.unit, args.leads)


def segmenting(parser: argparse.ArgumentParser) -> None:
    """Add the network that segments stacks."""
    parser.add_argument(
        "--segment",
        type=Path,
        metavar="MODEL.onnx",
        help="network that segments stacks without a segmentation; MODEL.json beside it says what "
        "it expects (docs/formats.md)",
    )


def network(args: argparse.Namespace) -> Any:
    """The network of `--segment`, tried once; None without."""
    return lazy("raw.sax_network").open_network(args.segment) if args.segment else None


def note_left_aside(console: Console, kinds: Mapping[str, int]) -> None:
    """Say which files are no part of a recording, on stderr."""
    if kinds:
        console.note(f"ecgcmr: left aside: {lazy('raw.leftovers').words(kinds)}")
