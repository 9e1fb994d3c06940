"""One calm live display: what runs, how far, how fast, how long still. Everything else goes to a
log file.

Workers leave small progress files (`store.Progress`); a thread here reads them. On a terminal it
redraws in place; in a log of a job it writes one line now and then. It knows nothing of what the
work is. The display is stderr's, so that stdout holds results alone.
"""

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ecgcmr import files, store

LINE_EVERY_S = 15.0  # without a terminal
STALE_S = 120.0  # a record this old belongs to a killed run


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`, `320 h`: two units at most."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return (
        f"{whole // 3600} h {whole % 3600 // 60:02d} min"
        if whole < 360_000
        else f"{whole / 3600:,.0f} h"
    )


def describe(record: dict[str, Any]) -> dict[str, str]:
    """The words of one progress record: name, count, rate, time left, numbers shown beside."""
    position, total = record["done"], record["total"]
    seconds = max(record.get("now", record["started"]) - record["started"], 1e-9)
    since = position - record.get("resumed_at", 0)
    rate = since / seconds
    time_left = duration((total - position) / rate) if since > 0 and position < total else ""
    numbers = "  ".join(f"{name} {value:.4g}" for name, value in record.get("shown", {}).items())
    unit = record["unit"]
    speed = (
        f"{rate:.3g} {unit}/s"
        if rate >= 0.1
        else f"{1 / max(rate, 1e-9):.3g} s/{unit.removesuffix('s')}"
    )
    count = f"{position:,}/{total:,} {unit}"
    return {
        "name": record["name"],
        "count": count,
        "rate": speed if since > 0 else "",
        "left": time_left,
        "shown": numbers,
    }


def _columns(record: dict[str, Any]) -> list[str]:
    """Name, count, rate, time left and numbers of one progress record; empty what it lacks."""
    words = describe(record)
    time_left = f"{words['left']} left" if words["left"] else ""
    return [words["name"], words["count"], words["rate"], time_left, words["shown"]]


class Display:
    """Stages, one after another, each with what runs inside it.

    Args:
        folders: where progress files appear.
        out: the stream that a person reads (the terminal, not the log).
    """

    def __init__(self, folders: list[Path], out: TextIO) -> None:
        self.folders, self.out = folders, out
        self.console = Console(file=out, highlight=False)
        self.live = self.console.is_terminal

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[list[str]]:
        """Show a stage while its body runs; its end shows what the body appends to the list."""
        notes: list[str] = []
        start, stop = time.monotonic(), threading.Event()
        watch = self._redraw if self.live else self._lines
        thread = threading.Thread(target=watch, args=(title, start, stop), daemon=True)
        thread.start()
        mark = "✗"
        try:
            yield notes
            mark = "✓"
        finally:
            stop.set()
            thread.join()
            line = "  ".join([f"{mark} {title}", *notes, f"[{duration(time.monotonic() - start)}]"])
            self.console.print(line, markup=False, soft_wrap=True)

    def _records(self) -> list[dict[str, Any]]:
        now = time.time()
        records = [record for folder in self.folders for record in store.running(folder)]
        return [
            record for record in records if now - record.get("now", record["started"]) < STALE_S
        ]

    def _redraw(self, title: str, start: float, stop: threading.Event) -> None:
        with Live(console=self.console, transient=True, refresh_per_second=4) as live:
            while not stop.wait(0.25):
                live.update(self._drawing(title, time.monotonic() - start))

    def _drawing(self, title: str, seconds: float) -> Group:
        table = Table.grid(padding=(0, 2))
        for record in self._records():
            name, *columns = _columns(record)
            bar = ProgressBar(total=max(record["total"], 1), completed=record["done"], width=24)
            table.add_row(f"  {name}", bar, *columns)
        return Group(Text(f"▸ {title}  {duration(seconds)}", style="bold"), table)

    def _lines(self, title: str, start: float, stop: threading.Event) -> None:
        while not stop.wait(LINE_EVERY_S):
            for record in self._records():
                columns = [f"  {title}:", *filter(None, _columns(record))]
                self.console.print("  ".join(columns), markup=False, soft_wrap=True)


class Outlet(io.FileIO):
    """A descriptor whose reader may leave (`| head -1`): what was still to come is dropped, and the
    work goes on.
    """

    def write(self, data: Any) -> int:
        """Write, or pretend to."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


@dataclass(frozen=True)
class Streams:
    """Where a command's words go while everything else goes to its log.

    Attributes:
        person: stderr, for progress, notes and errors.
        results: stdout, for what the command was asked to print.
        log: the log file.
        made: the folders that were made for it, innermost first.
        since: when it was made, by the clock of its disk.
    """

    person: TextIO
    results: TextIO
    log: Path
    new_folders: list[Path]
    since: float

    def discard(self) -> None:
        """Remove the log, and the folders made for it as far as nothing else is in them."""
        self.log.unlink(missing_ok=True)
        files.vacate(self.new_folders)


@contextlib.contextmanager
def captured(log: Path) -> Iterator[Streams]:
    """Send everything written to stdout and stderr, by whomever, to `log`.

    Yield streams to what the two were before.

    Ray and its native parts write to the process's descriptors directly, so the descriptors
    themselves are moved.
    """
    new_folders = files.absent(log.parent)
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptors = [os.dup(1), os.dup(2)]
    with open(log, "ab", buffering=0) as sink:
        since = os.fstat(sink.fileno()).st_mtime
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    results, person = (
        io.TextIOWrapper(io.BufferedWriter(Outlet(os.dup(copy), "w")), line_buffering=True)
        for copy in descriptors
    )
    try:
        yield Streams(person, results, log, new_folders, since)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        root.removeHandler(handler)
        handler.close()
        root.setLevel(level)
        for number, copy in zip((1, 2), descriptors, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        for stream in (results, person):
            with contextlib.suppress(
                OSError
            ):  # every line was flushed: what fails now has failed before
                stream.close()
