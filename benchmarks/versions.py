"""Loads another version of this project into the same process."""

import contextlib
import importlib
import pathlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

PACKAGES = ("ram_jax", "configs", "benchmarks")


class Checkout:
  """The modules of another checkout.

  It uses its own benchmarks, or this version's if it has none with that name.
  """

  def __init__(self, folder: str) -> None:
    """Stores the folder; nothing is imported from it yet."""
    self.folder = folder
    package = types.ModuleType("benchmarks")
    here = pathlib.Path(__file__).parent
    package.__path__ = [str(pathlib.Path(folder) / "benchmarks"), str(here)]
    self._modules = {"benchmarks": package}

  def load(self, name: str) -> types.SimpleNamespace:
    """Loads a module of the checkout.

    Args:
      name: name of the module, such as `benchmarks.our_step`.

    Returns:
      Its functions and classes, which import from the checkout when called.
    """
    with self._active():
      module = importlib.import_module(name)
    found = {k: v for k, v in vars(module).items() if callable(v)}
    return types.SimpleNamespace(**{k: self.bound(v) for k, v in found.items()})

  def bound(self, function: Callable) -> Callable:
    """Wraps a function so that it imports from the checkout when called."""

    def call(*arguments: Any, **named: Any) -> Any:
      with self._active():
        return function(*arguments, **named)

    return call

  @contextlib.contextmanager
  def _active(self) -> Iterator[None]:
    ours = _remove()
    sys.modules.update(self._modules)
    try:
      with mock.patch.object(sys, "path", [self.folder, *sys.path]):
        yield
    finally:
      self._modules = _remove()
      sys.modules.update(ours)


def _remove() -> dict[str, types.ModuleType]:
  names = [n for n in sys.modules if n.partition(".")[0] in PACKAGES]
  return {name: sys.modules.pop(name) for name in names}
