"""The command line: `ecgcmr <command>` here, `python jobs/<command>.py` on a cluster.

A command (`commands/`) checks its arguments, opens what it needs, calls one function of the layer
below and says in a few lines what came of it. Results go to stdout, the rest to stderr. Bad input
is one line and exit code 2, and leaves nothing behind; whatever else goes wrong is one line, a log
file and exit code 1.
"""

import argparse
import errno
import logging
import os
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from ecgcmr import __version__, plugins, store
from ecgcmr.commands import cohorts, models, progress, results, studies
from ecgcmr.commands.console import Console
from ecgcmr.commands.grammar import Parser
from ecgcmr.errors import InputError

KINDS = (cohorts, studies, results, models)  # in the order of the help
EXAMPLES = {name: example for kind in KINDS for name, example in kind.EXAMPLES.items()}


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    top = Parser(
        prog="ecgcmr",
        description="Teach the 12-lead ECG what cardiac MRI knows.",
        epilog=f"start here:\n  {EXAMPLES['doctor']}\n  {EXAMPLES['reproduce']}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ecgcmr {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for kind in KINDS:
        kind.grammar(commands)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        plugins.load()  # before the grammar, which names what is registered
    except InputError as error:
        print(f"ecgcmr: {error}", file=sys.stderr)
        return 2
    args = parsed(argv)
    for name in ("runs", "cohort"):
        if hasattr(args, name):
            setattr(args, name, getattr(args, name).expanduser().resolve())
    has_runs = hasattr(args, "runs")
    folder = args.runs / "logs" if has_runs else Path(tempfile.mkdtemp(prefix="ecgcmr-"))
    log = (
        folder / f"{args.name.replace(' ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    )
    try:
        with progress.captured(log) as out:
            code = run(args, out)
        if not has_runs and code != 1:  # 1 tells where the log is
            shutil.rmtree(folder, ignore_errors=True)
        return code
    except OSError as error:
        print(f"ecgcmr: {os_words(error)}", file=sys.stderr)
        return 2


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The arguments.

    A reader of the help who has left is no error, and Python would find it only at its end.
    """
    try:
        return parser().parse_args(argv)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(args: argparse.Namespace, out: progress.Streams) -> int:
    """Call the command's function and turn what it raises into a line and an exit code."""
    logger = logging.getLogger("ecgcmr")
    console = Console(args, out)
    try:
        return args.function(args, console)
    except InputError as error:
        logger.info("refused: %s", error)
        console.note(f"ecgcmr: {' '.join(str(error).split())}")
        if not worked(args, console):
            out.discard()
        return 2
    except (KeyboardInterrupt, SystemExit):  # Ray Train turns the first into the second
        console.note("ecgcmr: stopped; the same command goes on where this one was")
        return 130
    except OSError as error:
        logger.error(traceback.format_exc())
        console.note(f"ecgcmr: {os_words(error)}")
        return 2
    except Exception as error:
        logger.error(traceback.format_exc())
        console.note(
            f"ecgcmr: {type(error).__name__}: {first_line(error)}; the whole story is in {out.log}"
        )
        return 1
    finally:
        console.close()


def worked(args: argparse.Namespace, console: Console) -> bool:
    """Whether a refused command has finished a cohort or a trial before, which its log tells of."""
    if not console.ray:  # neither is made without, and a search of all runs may take seconds
        return False
    outputs = [args.cohort / "_cohort.json", *args.runs.glob(f"**/seed=*/{store.RECORD}")]
    return any(path.exists() and path.stat().st_mtime >= console.out.since for path in outputs)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, short."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"


def os_words(error: OSError) -> str:
    """A failure of the file system in one line that says what to do."""
    if error.errno == errno.ENOSPC:
        where = error.filename or "the output folder"
        return f"no space left on the disk of {where}; free some and run the same command again"
    if error.errno in (errno.EACCES, errno.EROFS):
        return (
            f"{error.filename}: not allowed to write or read there; "
            "choose another --runs or --cohort"
        )
    return f"{error.filename or 'a file'}: {error.strerror or error}"


if __name__ == "__main__":
    sys.exit(main())
