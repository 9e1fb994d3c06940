"""Methods, tasks, signals and readers from outside the package: modules that register them.

The one idea: what registers is code that runs when it is imported, so whoever knows the names of
such modules can import them too. The driver takes names from `ECGCMR_PLUGINS`, from installed
packages (entry points of the group `ecgcmr.plugins`) and from search-space files, and hands those
that have registered something to every worker, which imports them before anything else
(`load(names)`). What was registered otherwise, by hand in a notebook, no worker could know: it is
refused before a worker starts. This file knows no registry.
"""

import contextlib
import functools
import importlib
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


def load(names: Iterable[str] | None = None) -> None:
    """Import plugins, each once per process.

    Args:
        names: modules, or paths of Python files; by default those that the environment and
            installed packages name.

    Raises:
        InputError: one is not there, or fails.
    """
    for name in dict.fromkeys(_named() if names is None else names):
        if name.endswith(".py"):
            _file(name)
        else:
            _import(name)


def carried() -> list[str]:
    """The plugins that a worker has to import: those that registered something, in order.

    Raises:
        InputError: something was registered outside any plugin.
    """
    load()
    by_hand = [(kind, name) for (kind, name), owner in _owners.items() if not owner]
    if by_hand:
        kind, name = by_hand[0]
        raise InputError(
            f"{kind} '{name}' was registered in this process alone, and workers would not know "
            "it; put the registration "
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
    sys.modules[module.__name__] = module  # it may name itself, and what it defines can be pickled
    with _as_plugin(name):
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    _modules[name], _contents[name] = module, content
    return module


def _named() -> list[str]:
    """What the environment and installed packages name."""
    return [*os.environ.get(VARIABLE, "").replace(",", " ").split(), *_installed()]


@functools.cache
def _installed() -> tuple[str, ...]:
    from importlib import metadata  # not above: every process imports this file, few ask

    return tuple(point.value for point in metadata.entry_points(group=GROUP))


def _import(name: str) -> None:
    if name in _modules:
        return
    with _refusing(name), _as_plugin(name):
        _modules[name] = importlib.import_module(name)


def _file(name: str) -> None:
    path = _there(name)
    with _refusing(name):
        file(path)


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Say in one line that a plugin fails, and where."""
    try:
        yield
    except InputError as error:
        raise InputError(f"plugin '{name}': {error}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"plugin '{name}' cannot be imported on {socket.gethostname()}: {reason}; mend it, "
            "install it on every node, or "
            f"take it out of {VARIABLE}"
        ) from error


def _there(name: str) -> Path:
    """The plugin's file as this node has it: at its path, or at an end of it below this folder.

    Raises:
        InputError: it has none.
    """
    path = Path(name)
    near = (path, *(Path.cwd().joinpath(*path.parts[n:]) for n in range(1, len(path.parts))))
    for place in near:
        if place.is_file():
            return place
    raise InputError(
        f"{name}: {socket.gethostname()} has no such file, which registers what the command "
        "needs; submit it with the job "
        "(ray job submit --working-dir) or put it into a folder that all nodes share"
    )


@contextlib.contextmanager
def _as_plugin(name: str) -> Iterator[None]:
    _importing.append(name)
    try:
        yield
    finally:
        _importing.pop()
