"""Decisions that are made in one place: each test fails when a second place is written, and its text is the fix."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "ecgcmr"


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").as_posix(), ast.parse(path.read_text())


def functions(tree):
    """Every function of a file, and what of it stands outside of functions."""
    yield from (
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


def calls(tree):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def name_of(call):
    """The last word of what is called: `runs.score` and `score` are both `score`."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def names_in(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def parses_a_record(place, tree):
    """Reads JSON in a function that names the record of a run."""
    for function in functions(tree):
        reads = any(name_of(call) in ("loads", "load") for call in calls(function))
        words = {node.value for node in ast.walk(function) if isinstance(node, ast.Constant)}
        if reads and ("RECORD" in set(names_in(function)) or "trial.json" in words):
            yield function.lineno


def makes_a_trial_of_json(place, tree):
    yield from (call.lineno for call in calls(tree) if name_of(call) == "from_json")


def splits_a_name(place, tree):
    """Divides text at slashes, as only the grammar of a trial's name may."""
    for call in calls(tree):
        divides = name_of(call) in ("split", "rsplit", "partition", "rpartition")
        if divides and call.args and getattr(call.args[0], "value", None) == "/":
            yield call.lineno


def compares_recipes(place, tree):
    for call in calls(tree):
        words = " ".join(ast.unparse(argument) for argument in call.args)
        if name_of(call) == "differing" and "recipe" in words:
            yield call.lineno


def selects_by_a_score(place, tree):
    """Asks for a number of validation by which runs could be ranked."""
    for call in calls(tree):
        constants = [getattr(argument, "value", None) for argument in call.args]
        if name_of(call) == "score" and "val" in constants:
            yield call.lineno


def reads_a_choice(place, tree):
    yield from (node.lineno for node in ast.walk(tree) if getattr(node, "value", "") == "choice")


# The decision, how a second place shows, where it is made, and what to do instead. Readers of recordings, the
# linkage and labels divide names of files at slashes, not names of trials.
DECISIONS = [
    pytest.param(
        parses_a_record, {"runs"}, "take a Run from runs.read_run or runs.all_runs", id="trial.json"
    ),
    pytest.param(
        makes_a_trial_of_json,
        {"runs", "training/pretrain"},  # a worker of Ray Train gets its trials as JSON
        "take `trial` of a Run from runs.read_run",
        id="trial of a record",
    ),
    pytest.param(
        splits_a_name,
        {"trial"},
        "use trial.name_parts, Trial.system_folder or Trial.task_folder",
        id="grammar of a name",
    ),
    pytest.param(
        compares_recipes,
        {"runs", "training/checkpoint"},  # a checkpoint's recipe is its trial's
        "call runs.check_prepared_alike",
        id="prepared alike",
    ),
    pytest.param(
        selects_by_a_score,
        {"evaluation/selection"},
        "ask evaluation.selection which configuration or pre-training stands",
        id="what stands for a system",
    ),
    pytest.param(
        reads_a_choice,
        {"evaluation/selection"},
        "call selection.read_choice or selection.standing_configuration",
        id="choice.json",
    ),
]


@pytest.mark.parametrize(("shows", "places", "fix"), DECISIONS)
def test_it_is_decided_in_one_place(shows, places, fix):
    faults = [
        f"platform/ecgcmr/{place}.py:{line}: {fix}"
        for place, tree in files()
        if place not in places and not place.startswith(("raw/", "cohort/"))
        for line in shows(place, tree)
    ]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("shows", "code"),
    [
        (
            parses_a_record,
            "def f(p):\n    return json.loads((p / store.RECORD).read_text())['trial']",
        ),
        (makes_a_trial_of_json, "t = trials.from_json(record['trial'])"),
        (splits_a_name, "system = trial.name.split('/')[3]"),
        (splits_a_name, "sweep = name.rsplit('/', 2)[0]"),
        (compares_recipes, "d = differing(old['recipe'], recipe)"),
        (selects_by_a_score, "best = max(found, key=lambda run: run.score('val', metric))"),
        (reads_a_choice, "path = folder / f'{\"choice\"}.json'"),
    ],
)
def test_a_second_place_is_found(shows, code):
    assert list(shows("report/new", ast.parse(code)))
