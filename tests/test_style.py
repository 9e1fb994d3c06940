"""Ceilings of style that only fall: lower a number when you have made its package better, never raise one.

Names: an assigned name that is a bare participle or pronoun says what was done, not what is in it.
Lines: nodes of the syntax tree a line say how much a reader has to take in at once.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "ecgcmr"

_PRONOUNS = """it that this these those they them one each own mine other others both some any none
all what who which whose"""
PRONOUNS = set(_PRONOUNS.split())
_PARTICIPLES = """found made given said kept told taken left held seen known got drawn done written shown cut
begun built meant sent bound met brought chosen broken hidden lost grown read"""
PARTICIPLES = set(_PARTICIPLES.split())
# The field's own words, and words that only end like a participle.
_NAMES = "seed speed feed embed predicted measured observed fitted masked labelled expected"
NAMES = set(_NAMES.split())

# Percent of the names that a package assigns; a file at the top level counts under its own name.
VAGUE = {
    "cohort": 0.5,
    "errors": 25,
    "evaluation": 1.5,
    "inference": 0.5,
    "methods": 1,
    "nn": 1.5,
    "raw": 0.5,
    "report": 0.5,
    "training": 0.5,
}
VAGUE_IN_ALL = 0.4
NODES_A_LINE = 5.3
LONG_LINES = (
    16  # of over 100 characters: comments and words of messages, which the formatter leaves
)
SKIPS = 0  # `fmt: skip`
OPERATORS = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)


def files():
    return sorted(PACKAGE.rglob("*.py"))


def place(path):
    """The package of a file, or its own name at the top level."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_vague(name):
    word = name.strip("_")
    if word in NAMES:
        return False
    return word in PRONOUNS or word in PARTICIPLES or bool(re.fullmatch(r"[a-z]+ed", word))


def assigned(path):
    """(name, line) of every name that a file assigns, loops and comprehensions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def share(names):
    return 100 * sum(is_vague(name) for name in names) / max(1, len(names))


def test_names_say_what_is_in_them():
    by_place = {}
    for path in files():
        by_place.setdefault(place(path), []).extend(name for name, _ in assigned(path))
    faults = [
        f"{name}: {share(names):.1f} % of its assigned names are bare participles or pronouns, the "
        f"ceiling is {VAGUE.get(name, 0)}; name what is in them (found → rows, given → requested …)"
        for name, names in sorted(by_place.items())
        if share(names) > VAGUE.get(name, 0)
    ]
    assert not faults, "\n" + "\n".join(faults)
    every = [name for names in by_place.values() for name in names]
    assert share(every) <= VAGUE_IN_ALL


def test_a_line_holds_one_thing():
    nodes = lines = 0
    for path in files():
        text = path.read_text()
        nodes += sum(not isinstance(node, OPERATORS) for node in ast.walk(ast.parse(text)))
        lines += sum(bool(line.strip()) and line.strip()[0] != "#" for line in text.splitlines())
    assert nodes / lines <= NODES_A_LINE, (
        f"{nodes / lines:.2f} nodes a line: split long expressions"
    )


def test_lines_are_short_and_laid_out_by_the_formatter():
    long = skips = 0
    for path in files():
        text = path.read_text()
        long += sum(len(line) > 100 for line in text.splitlines())
        skips += len(re.findall(r"fmt: (?:skip|off)", text))
    assert long <= LONG_LINES, f"{long} lines of over 100 characters: wrap comments and messages"
    assert skips <= SKIPS, "let the formatter lay it out; give a table a function that reads it"


@pytest.mark.parametrize(
    ("name", "vague"),
    [
        ("found", True),
        ("one", True),
        ("_given", True),
        ("balanced", True),
        ("seed", False),
        ("predicted", False),
        ("rows", False),
        ("found_rows", False),
    ],
)
def test_a_vague_name_is_known(name, vague):
    assert is_vague(name) == vague
