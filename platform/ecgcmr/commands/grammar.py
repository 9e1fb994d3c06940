"""A parser of command lines that answers a mistake in one line, with what was probably meant."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ecgcmr.errors import near

RENAMED = {
    "seeds": "evaluate",
    "--label": "--system",
}  # words of files and commands written before; see CHANGELOG


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` without the block of usage before its errors; subcommands are of it too.

    Raises `SystemExit` with code 2 on a mistake, after one line on stderr.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; an option that nobody knows is told before what is missing, which it may be."""
        options = self._option_string_actions
        has_commands = self._subparsers is not None
        for word in sys.argv[1:] if args is None else args:
            name = word.split("=")[0]
            if name == "--" or (has_commands and not name.startswith("-")):
                break  # what follows a command is for its own parser
            if name.startswith("--") and not any(option.startswith(name) for option in options):
                self.error(f"there is no option {name}{meant(name, options)}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        hint = meant(str(value), choices) or f"; there are {', '.join(choices)}"
        raise argparse.ArgumentError(action, f"there is no '{value}'{hint}")

    def error(self, message: str) -> NoReturn:
        """Write the mistake, and where help is, in one line."""
        text = re.sub(r"^argument (COMMAND|ACTION): ", "", " ".join(message.split()))
        text = text.replace("unrecognized arguments:", "one argument too many:")
        self.exit(2, f"{self.prog}: {text}; see {self.prog} --help\n")


def meant(word: str, words: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no word is near."""
    words = list(words)
    today = RENAMED.get(word)
    if today in words:
        return f", it is called '{today}' now"
    return near(word, words)
