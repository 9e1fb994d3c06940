"""Methods, tasks, signals, encoders and readers from outside the package: modules and files that
register them.

The one idea: what registers is code that runs when it is imported, so whoever knows the names of
such modules can import them too. The driver takes names from `ECGCMR_PLUGINS`, from installed
packages (entry points of the group `ecgcmr.plugins`) and from search-space files, and hands those
that have registered something to every worker, which imports them before anything else
(`load(names)`). What was registered otherwise, by hand in a notebook, no worker could know: it is
refused before a worker starts. This file knows no registry.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ecgcmr.errors import InputError

VARIABLE, GROUP = "ECGCMR_PLUGINS", "ecgcmr.plugins"

_modules: dict[str, ModuleType] = {}  # by name, or by the file's path as it was named first
_contents: dict[str, bytes] = {}  # of files, as they were when they were imported
_owners: dict[tuple[str, str], str] = {}  # (kind, name) of what was registered -> by which plugin
_importing: list[str] = []  # the plugin whose import is under way, innermost last


def register(registry: dict[str, Any], kind: str, name: str, value: Any) -> None:
    """Enter a value into a registry, and note which plugin did it.

    Args:
        registry: the registry.
        kind: what it holds, for the error: "method", "signal" …
        name: of the entry.
        value: the entry; a plugin that is imported again replaces its own.

    Raises:
        InputError: the name is taken, by the package or by another plugin.
    """
    owner = _importing[-1] if _importing else ""
    if name in registry and _owners.get((kind, name)) != owner:
        holder = _owners.get((kind, name)) or "ecgcmr"
        raise InputError(f"{kind} '{name}' is registered by {holder} already; choose another name")
    registry[name], _owners[kind, name] = value, owner


def load(names: Iterable[str] = ()) -> None:
    """Import these plugins, and those that the environment and installed packages name; each once
    per process.

    Args:
        names: modules, or paths of Python files.

    Raises:
        InputError: one is not there, or fails.
    """
    plugin_names = [*_named(), *names]
    for name in dict.fromkeys(plugin_names):
        if not name.endswith(".py"):
            _import(name)
        else:
            file(_there(name))


def carried() -> list[str]:
    """The plugins that a worker has to import, in the order of the driver's imports: those that
    registered something.

    Raises:
        InputError: something was registered outside any plugin.
    """
    load()
    by_hand = [(kind, name) for (kind, name), owner in _owners.items() if not owner]
    if by_hand:
        kind, name = by_hand[0]
        raise InputError(
            f"{kind} '{name}' was registered in this process alone, and workers would not know it; "
            "put the registration "
            f"into a module and name that in {VARIABLE}"
        )
    registering = set(_owners.values())
    return [name for name in _modules if name in registering]


def file(path: Path) -> ModuleType:
    """Import a Python file under a name of its own; again only where its content has changed.

    Raises:
        OSError: it cannot be read; whatever else the file itself raises.
    """
    name, content = str(path.absolute()), path.read_bytes()
    if _contents.get(name) == content:
        return _modules[name]
    spec = importlib.util.spec_from_file_location(f"ecgcmr_plugin_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    with _as_plugin(name):
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    sys.modules[module.__name__] = module  # what it defines can be pickled
    _modules[name], _contents[name] = module, content
    return module


def _named() -> list[str]:
    """What the environment and installed packages name."""
    words = os.environ.get(VARIABLE, "").replace(",", " ").split()
    return [*words, *(point.value for point in importlib.metadata.entry_points(group=GROUP))]


def _import(name: str) -> None:
    if name in _modules:
        return
    try:
        with _as_plugin(name):
            _modules[name] = importlib.import_module(name)
    except InputError as error:
        raise InputError(f"plugin '{name}': {error}") from error
    except Exception as error:
        raise InputError(
            f"plugin '{name}' cannot be imported on {socket.gethostname()}: "
            f"{type(error).__name__}: {error}; install it on "
            f"every node or submit it with the job, or take it out of {VARIABLE}"
        ) from error


def _there(name: str) -> Path:
    """The plugin's file as this node has it: where the driver has it, or the same below this
    process's folder.

    Raises:
        InputError: it has none.
    """
    path = Path(name)
    near = (path, *(Path.cwd().joinpath(*path.parts[n:]) for n in range(1, len(path.parts))))
    for place in near:
        if place.is_file():
            return place
    raise InputError(
        f"{name}: {socket.gethostname()} has no such file, which registers what the command needs; "
        "submit it with the job "
        "(ray job submit --working-dir) or put it into a folder that all nodes share"
    )


@contextlib.contextmanager
def _as_plugin(name: str) -> Iterator[None]:
    _importing.append(name)
    try:
        yield
    finally:
        _importing.pop()
