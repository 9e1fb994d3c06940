"""Decisions that are made in one place, over the syntax tree of the source; a failure's text is the fix."""

import ast

import pytest
from test_imports import PACKAGE, ROOT, modules

# Where a decision may be written; everywhere else it is asked for.
PRESENCE = ("cohort/presence",)
INPUTS = ("data/inputs",)
SIGNALS = ("signals/",)
# `examples` draws which rows a trial learns from, once and for all; `linkage` whose they are; the rest are no rows.
ORDERS = ("data/sampler", "data/examples")
ORDERED = ("data/", "training/", "inference/", "search/plan")


def text_of(node):
    """The constant text of a string or an f-string."""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value for part in node.values if isinstance(part, ast.Constant))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def attributes(tree):
    """(the part before the dot, the part after it, line) of every attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield ast.unparse(node.value), node.attr, node.lineno


def a_second_presence(here, tree):
    """Lines that say in their own way which rows have a signal."""
    if here in PRESENCE:
        return
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    pieces = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if id(node) not in docs | pieces and text_of(node).startswith("has_"):
            yield node.lineno, f"'{text_of(node)}': call presence.has, or presence.column"
    for _, name, line in attributes(tree):
        if name in ("has_ecg", "has_cmr"):
            yield line, f".{name}: call presence.has(rows, '{name[4:]}')"


def a_second_conversion(here, tree):
    """Lines that turn a stored signal into a network's input in their own way."""
    if here.startswith(SIGNALS):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult):
            scale = ast.unparse(node.right)
            if scale in ("255", "255.0", "1 / 255", "1 / 255.0"):
                yield node.lineno, f"{ast.unparse(node)}: call inputs.to_model, or inputs.of_held"
    for owner, name, line in attributes(tree):
        if (owner, name) == ("ecg", "normalise"):
            yield line, "ecg.normalise: call inputs.to_model, or inputs.held"
        if name == "to_model" and owner != "inputs" and here not in INPUTS:
            yield line, f"{owner}.to_model: call inputs.to_model, or inputs.held and of_held"


def a_second_order(here, tree):
    """Lines that put rows into an order of their own."""
    if here in ORDERS or not here.startswith(ORDERED):
        return
    for owner, name, line in attributes(tree):
        if name in ("permutation", "permuted", "shuffle", "randperm") and owner != "sampler":
            yield (
                line,
                f"{owner}.{name}: add the order to data/sampler.py, or call one that is there",
            )


DECISIONS = (a_second_presence, a_second_conversion, a_second_order)


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.__name__)
def test_a_decision_is_made_once(decision):
    faults = [
        f"{path.relative_to(ROOT)}:{line} {fix}"
        for path, here, tree in modules()
        for line, fix in decision(here, tree)
    ]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("decision", "here", "code", "fix"),
    [
        (a_second_presence, "training/pretrain", 'rows[f"has_{name}"]', "call presence.has"),
        (a_second_presence, "report/page", 'rows["has_ecg"]', "call presence.has"),
        (a_second_presence, "report/page", "rows.has_cmr.any()", "presence.has(rows, 'cmr')"),
        (a_second_conversion, "inference/encoder", "view(x / 255, {})", "call inputs.to_model"),
        (a_second_conversion, "inference/encoder", "ecg.normalise(x)", "call inputs.to_model"),
        (a_second_conversion, "inference/encoder", "SIGNALS[n].to_model(x, d)", "inputs.held"),
        (a_second_order, "training/pack", "rng.permutation(n)", "data/sampler.py"),
        (a_second_order, "data/stream", "torch.randperm(n)", "data/sampler.py"),
    ],
)
def test_a_second_decision_is_found_and_told_how_to_mend(decision, here, code, fix):
    ((_, words),) = decision(here, ast.parse(code))
    assert fix in words


@pytest.mark.parametrize(
    ("decision", "here", "code"),
    [
        (a_second_presence, "cohort/presence", 'f"has_{signal}"'),
        (a_second_conversion, "signals/cmr", "images.to(dtype) / 255"),
        (a_second_conversion, "training/loop", "inputs.to_model(batch, dtype)"),
        (a_second_order, "training/pack", "sampler.permuted(seed, epoch, n, batch)"),
        (a_second_order, "cohort/linkage", "rng.permutation(persons)"),
    ],
)
def test_the_one_place_is_left_alone(decision, here, code):
    assert not list(decision(here, ast.parse(code)))


def test_the_places_are_there():
    assert all((PACKAGE / f"{here}.py").exists() for here in (*PRESENCE, *INPUTS, *ORDERS))
