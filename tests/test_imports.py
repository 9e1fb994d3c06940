"""The layers of the package and the doors of its heavy libraries; a failure's text is the fix."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "ecgcmr"

# From the bottom up; a name is a file or a folder of the package. Imports go downwards, or sideways.
LAYERS = (
    ("errors", "presets"),
    ("ecg", "flags", "cmr", "augment", "losses", "metrics", "statistics", "optim", "hardware", "cluster", "replay"),
    ("nn",),
    ("raw", "tasks", "methods", "paper", "phenotypes"),
    (
        "trial",
        "study",
        "store",
        "weights",
        "cohort",
        "shards",
        "pairing",
        "labels",
        "check",
        "withdraw",
        "order",
        "checkpoint",
    ),
    ("examples", "tabular", "pack"),
    ("fit", "rungs", "stream", "training", "memory", "packing", "spaces", "served", "model"),
    (
        "report",
        "explain",
        "predict",
        "embed",
        "export",
        "inspect",
        "sweep",
        "pretrain",
        "track",
        "plan",
        "progress",
        "doctor",
    ),
    ("commands",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# A library, and the only files (or folders) that may import it. The longest name that fits decides.
DOORS = {
    "ray": ("cluster", "stream", "cohort", "embed", "pretrain", "sweep"),
    "ray.data": ("stream", "cohort", "embed"),  # three maps over shards: to the device, to disk, through an encoder
    "ray.train": ("pretrain",),
    "ray.tune": ("sweep",),
    "optuna": ("sweep",),
    "aim": ("track",),
    "matplotlib": ("report",),
    "xgboost": ("tabular",),
    "wfdb": ("raw",),
    "nibabel": ("raw",),
    "pydicom": ("raw",),
    "h5py": ("raw",),
    "defusedxml": ("raw",),
    "ecgdatakit": ("raw",),
    "onnx": ("export",),
    "onnxruntime": ("export",),
    "onnxscript": ("export",),
    "rich": ("progress",),
    "jinja2": ("report",),
}
CALLS = ("importlib.import_module", "import_module", "__import__")
VAGUE = {"utils", "util", "common", "helpers", "helper", "base", "misc", "tools"}


def modules():
    """(path, name below the package, syntax tree) of every file of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        below = path.relative_to(PACKAGE).with_suffix("").parts
        yield path, below[0], ast.parse(path.read_text(), str(path))


def imported(tree):
    """(dotted name, line) of everything a file imports, inside functions and through importlib too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import; write  from ecgcmr import …"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), node.lineno


def layer_fault(where, here, name):
    """What is wrong with an import of the package's own `name` in file `here`; None if nothing."""
    part = name.split(".")[1] if "." in name else ""
    if part not in LEVEL or here not in LEVEL or LEVEL[part] <= LEVEL[here]:
        return None
    return (
        f"{where} imports ecgcmr.{part}, which lies above it ({here} is in layer {LEVEL[here]}, {part} in {LEVEL[part]}): "
        f"move what it needs down, or let the caller hand it in"
    )


def door_fault(where, here, name):
    """What is wrong with an import of a heavy library; None if nothing."""
    doors = [library for library in DOORS if name == library or name.startswith(library + ".")]
    if not doors:
        return None
    library = max(doors, key=len)
    if here in DOORS[library]:
        return None
    allowed = " or ".join(f"{door}.py" if (PACKAGE / f"{door}.py").exists() else f"{door}/" for door in DOORS[library])
    return f"{where} imports {library}: only {allowed} may import {library}; move the call there"


def faults(path, here, tree):
    """Every wrong import of a file."""
    place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    found = []
    for name, line in imported(tree):
        where = f"{place}:{line}"
        first = name.split(".")[0]
        if first == "ecgcmr":
            found.append(layer_fault(where, here, name))
        elif first in ("jobs", "search_spaces", "tests", "benchmarks"):
            found.append(
                f"{where} imports {first}: it uses the package, not the other way; move the code into the package"
            )
        else:
            found.append(door_fault(where, here, name))
    return [fault for fault in found if fault]


def test_imports_go_downwards_and_through_the_doors():
    found = [fault for path, here, tree in modules() for fault in faults(path, here, tree)]
    assert not found, "\n" + "\n".join(found)


def test_every_file_has_a_layer():
    unknown = sorted({here for _, here, _ in modules()} - LEVEL.keys() - {"__init__"})
    assert not unknown, (
        f"give {', '.join(unknown)} a place in LAYERS of tests/test_imports.py and in docs/architecture.md"
    )


def test_only_cluster_starts_ray():
    found = []
    for path, here, tree in modules():
        for node in ast.walk(tree):
            if (
                here != "cluster"
                and isinstance(node, ast.Attribute)
                and ast.unparse(node) in ("ray.init", "ray.shutdown")
            ):
                found.append(
                    f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node)}: use cluster.start and stop"
                )
    assert not found, "\n" + "\n".join(found)


def test_names_say_what_a_file_is_for():
    found = [path.relative_to(ROOT) for path in PACKAGE.rglob("*.py") if path.stem in VAGUE]
    assert not found, f"{', '.join(map(str, found))}: name the file by what it does"


def test_platform_is_no_package():
    init = ROOT / "platform" / "__init__.py"
    assert not init.exists(), f"delete {init}: it hides the standard library's module and hangs every Ray job"


def test_the_standard_librarys_platform_wins():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    code += "import platform, ecgcmr; print(platform.python_version())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.stdout.strip() == ".".join(map(str, sys.version_info[:3])), done.stderr


def test_nothing_prints():
    found = []
    for path, here, tree in modules():
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        if here not in ("cli", "commands"):
            found += [f"{path.relative_to(ROOT)}:{n.lineno} prints: use logging" for n in calls if n.func.id == "print"]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("folder", ["jobs", "search_spaces"])
def test_what_uses_the_package_says_what_it_is_for(folder):
    for path in sorted((ROOT / folder).glob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text())), (
            f"{path.relative_to(ROOT)}: begin with a docstring (the lab book)"
        )


@pytest.mark.parametrize(
    ("here", "code", "fix"),
    [
        (
            "fit",
            "import ray.train",
            "platform/ecgcmr/fit.py:1 imports ray.train: only pretrain.py may import ray.train",
        ),
        (
            "fit",
            "from ray import data",
            "only stream.py or cohort.py or embed.py may import ray.data; move the call there",
        ),
        ("store", "def f():\n    import aim", "platform/ecgcmr/store.py:2 imports aim: only track.py may import aim"),
        ("fit", "import importlib\nimportlib.import_module('optuna')", "only sweep.py may import optuna"),
        ("ecg", "from ecgcmr import store", "imports ecgcmr.store, which lies above it"),
        ("ecg", "from ecgcmr.report.tables import table3", "imports ecgcmr.report, which lies above it"),
        ("cli", "from search_spaces import toy", "imports search_spaces: it uses the package, not the other way"),
    ],
)
def test_a_wrong_import_is_found_and_told_how_to_mend(here, code, fix):
    (found,) = faults(PACKAGE / f"{here}.py", here, ast.parse(code))
    assert fix in found


@pytest.mark.parametrize(
    "code", ["from ecgcmr import errors", "import numpy", "import aimrocks", "from ecgcmr import trial"]
)
def test_a_right_import_is_left_alone(code):
    assert faults(PACKAGE / "fit.py", "fit", ast.parse(code)) == []
