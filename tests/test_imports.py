"""The layers of the package and the doors of its heavy libraries; a failure's text is the fix."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "ecgcmr"

# From the bottom up; a name is a file or a folder of the package. Imports go downwards, or stay within a folder.
LAYERS = (
    ("errors",),
    ("plugins",),
    ("checksums", "files", "presets", "tasks"),
    ("paper",),
    ("runtime",),
    ("signals",),
    ("nn",),
    ("trial",),
    ("store",),
    ("runs",),
    ("raw", "methods"),
    ("evaluation",),
    ("cohort",),
    ("data",),
    ("training",),
    ("search",),
    ("inference",),
    ("report",),
    ("commands",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# A library, and the only files (or folders) that may import it. The longest name that fits decides.
DOORS = {
    "ray": (
        "runtime/cluster",
        "data/stream",
        "cohort/staging",
        "inference/embed_parts",
        "training/pretrain",
        "search/sweep",
    ),
    # three maps over shards: to the device, to disk, through an encoder
    "ray.data": ("data/stream", "cohort/staging", "inference/embed_parts"),
    "ray.train": ("training/pretrain",),
    "ray.tune": ("search/sweep",),
    "optuna": ("search/sweep",),
    "aim": ("report/track",),
    "matplotlib": ("report",),
    "xgboost": ("training/trees",),
    "wfdb": ("raw",),
    "nibabel": ("raw",),
    "pydicom": ("raw",),
    "h5py": ("raw",),
    "defusedxml": ("raw",),
    "ecgdatakit": ("raw",),
    "onnx": ("inference/export",),
    "onnxruntime": ("inference/export", "raw/sax_network"),
    "onnxscript": ("inference/export",),
    "rich": ("commands/progress",),
    "jinja2": ("report",),
}
CALLS = ("importlib.import_module", "import_module", "__import__")
VAGUE = {"utils", "util", "common", "helpers", "helper", "base", "misc", "tools"}


def modules():
    """(path, place below the package, syntax tree) of every file of the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, place_of(path), ast.parse(path.read_text(), str(path))


def place_of(path):
    """A file's place below the package, e.g. `training/pack`."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imported(tree):
    """(dotted name, line) of everything a file imports, inside functions and through importlib too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, (
                f"line {node.lineno}: relative import; write  from ecgcmr import …"
            )
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in CALLS
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value), node.lineno


def layer_fault(where, here, name):
    """What is wrong with an import of the package's own `name` in file `here`; None if nothing."""
    part, own = name.split(".")[1] if "." in name else "", here.split("/")[0]
    if part not in LEVEL or own not in LEVEL or part == own or LEVEL[part] < LEVEL[own]:
        return None
    side = "above" if LEVEL[part] > LEVEL[own] else "beside"
    return (
        f"{where} imports ecgcmr.{part}, which lies {side} it ({own} is in layer {LEVEL[own]}, {part} in {LEVEL[part]}): "
        f"move what it needs down, or let the caller hand it in"
    )


def door_fault(where, here, name):
    """What is wrong with an import of a heavy library; None if nothing."""
    doors = [library for library in DOORS if name == library or name.startswith(library + ".")]
    if not doors:
        return None
    library = max(doors, key=len)
    if any(here == door or here.startswith(f"{door}/") for door in DOORS[library]):
        return None
    allowed = " or ".join(
        f"{door}.py" if (PACKAGE / f"{door}.py").exists() else f"{door}/" for door in DOORS[library]
    )
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


def imports_of_files():
    """Place of a file -> places of the files that it imports, inside functions too."""
    places = {here.removesuffix("/__init__"): tree for _, here, tree in modules()}
    graph = {}
    for here, tree in places.items():
        dotted = {
            name.removeprefix("ecgcmr.").replace(".", "/")
            for name, _ in imported(tree)
            if name.startswith("ecgcmr.")
        }
        targets = {name if name in places else name.rpartition("/")[0] for name in dotted}
        graph[here] = {target for target in targets if target in places and target != here}
    return graph


def circle_through(start, graph):
    """The files of a circle that leads back to `start`; empty if none does."""
    paths = [[start]]
    visited = set()
    while paths:
        path = paths.pop()
        for target in sorted(graph[path[-1]]):
            if target == start:
                return path
            if target not in visited:
                visited.add(target)
                paths.append([*path, target])
    return []


def test_no_circle_of_files():
    graph = imports_of_files()
    circles = {tuple(sorted(circle)) for here in graph if (circle := circle_through(here, graph))}
    assert not circles, "\n".join(
        f"{' -> '.join(circle)}: move what they share into a file below" for circle in circles
    )


def test_a_circle_is_found():
    assert circle_through("a", {"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
    assert circle_through("a", {"a": {"b"}, "b": set()}) == []


def test_every_file_has_a_layer():
    unknown = sorted({here.split("/")[0] for _, here, _ in modules()} - LEVEL.keys() - {"__init__"})
    assert not unknown, (
        f"give {', '.join(unknown)} a place in LAYERS of tests/test_imports.py and in docs/architecture.md"
    )


def test_only_cluster_starts_ray():
    found = []
    for path, here, tree in modules():
        for node in ast.walk(tree):
            if (
                here != "runtime/cluster"
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
    assert not init.exists(), (
        f"delete {init}: it hides the standard library's module and hangs every Ray job"
    )


def test_the_standard_librarys_platform_wins():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(PACKAGE.parent)!r})\n"
    code += "import platform, ecgcmr; print(platform.python_version())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.stdout.strip() == ".".join(map(str, sys.version_info[:3])), done.stderr


def test_nothing_prints():
    found = []
    for path, here, tree in modules():
        calls = [
            n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        if here.split("/")[0] not in ("cli", "commands"):
            found += [
                f"{path.relative_to(ROOT)}:{n.lineno} prints: use logging"
                for n in calls
                if n.func.id == "print"
            ]
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
            "training/finetune",
            "import ray.train",
            "platform/ecgcmr/training/finetune.py:1 imports ray.train: only training/pretrain.py may import ray.train",
        ),
        (
            "training/finetune",
            "from ray import data",
            "only data/stream.py or cohort/staging.py or inference/embed_parts.py may import ray.data; move the call there",
        ),
        (
            "store",
            "def f():\n    import aim",
            "platform/ecgcmr/store.py:2 imports aim: only report/track.py may import aim",
        ),
        (
            "training/loop",
            "import importlib\nimportlib.import_module('optuna')",
            "only search/sweep.py may import optuna",
        ),
        ("signals/ecg", "from ecgcmr import store", "imports ecgcmr.store, which lies above it"),
        (
            "signals/ecg",
            "from ecgcmr.report.tables import paper",
            "imports ecgcmr.report, which lies above it",
        ),
        ("methods/mae", "from ecgcmr.raw import wfdb", "imports ecgcmr.raw, which lies beside it"),
        (
            "cli",
            "from search_spaces import toy",
            "imports search_spaces: it uses the package, not the other way",
        ),
    ],
)
def test_a_wrong_import_is_found_and_told_how_to_mend(here, code, fix):
    (found,) = faults(PACKAGE / f"{here}.py", here, ast.parse(code))
    assert fix in found


@pytest.mark.parametrize(
    "code",
    [
        "from ecgcmr import errors",
        "import numpy",
        "import aimrocks",
        "from ecgcmr.training import loop",
    ],
)
def test_a_right_import_is_left_alone(code):
    assert faults(PACKAGE / "training/finetune.py", "training/finetune", ast.parse(code)) == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("cohort.prepare", ("torch",)),  # 1.5 s of each of a build's workers
        ("data.stream", ("scipy", "sklearn", "pydicom", "nibabel", "ecgcmr.raw")),
        ("training.pretrain", ("scipy.signal", "scipy.linalg", "sklearn", "pydicom", "ecgcmr.raw")),
        ("training.finetune", ("scipy.signal", "scipy.linalg", "pydicom", "ecgcmr.raw")),
    ],
)
def test_workers_do_without_what_only_others_need(module, absent):
    code = f"import sys, ecgcmr.{module}; sys.exit(' '.join({set(absent)!r} & sys.modules.keys()) or 0)"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
