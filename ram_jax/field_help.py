"""The fields of a config for --help, with the comments of its source."""

import ast
import collections
import io
import pathlib
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

WIDTH, COLUMN = 80, 30  # of the text, and where comments start


def listing(config: ConfigDict, paths: Sequence[pathlib.Path]) -> str:
  """Lists all fields.

  Args:
    config: any.
    paths: Python files; where two describe a field, the first one counts.

  Returns:
    Lines `FIELD=VALUE  comment`: after `--config.` the value is read as it is.
  """
  return "\n".join(_lines(config, "", [b for p in paths for b in _blocks(p)]))


def _lines(
  config: ConfigDict, prefix: str, blocks: list[dict[str, str]]
) -> Iterator[str]:
  """A group's own fields first, and `name` before them; then its groups."""
  keys = sorted(config.keys(), key=lambda key: (key != "name", key))
  groups = [key for key in keys if isinstance(config[key], ConfigDict)]
  for key in (key for key in keys if key not in groups):
    field = f"  {prefix}{key}={_text(config[key])}"
    yield from _row(field, _comment(key, set(keys), blocks))
  for key in groups:
    yield ""
    yield from _row(f"{prefix}{key}:", _comment(key, set(keys), blocks))
    yield from _lines(config[key], f"{prefix}{key}.", blocks)


def _row(left: str, comment: str) -> Iterator[str]:
  """At most `WIDTH` wide; a long field has its comment below it."""
  rows = _wrapped(comment, WIDTH - COLUMN)
  if rows and len(left) < COLUMN - 1:
    left = left.ljust(COLUMN) + rows.pop(0)
  yield from _wrapped(left, WIDTH, subsequent_indent="    ")
  yield from (" " * COLUMN + row for row in rows)


def _wrapped(text: str, width: int, **options: Any) -> list[str]:
  options |= {"break_long_words": False, "break_on_hyphens": False}
  return textwrap.wrap(text, width, **options)


def _text(value: Any) -> str:
  """A value as `command_line.override` reads it."""
  if isinstance(value, tuple):
    words = [x if isinstance(x, str) else repr(x) for x in value]
    plain = all(isinstance(x, int | float) for x in value)
    if value and (plain or all(word.isidentifier() for word in words)):
      return ",".join(words)
    return repr(value)
  small = value is None or isinstance(value, bool)
  return str(value).lower() if small else str(value)


def _comment(key: str, keys: set[str], blocks: list[dict[str, str]]) -> str:
  """That of the block which has the most keys in common with the group."""

  def likeness(block: dict[str, str]) -> int:
    return len(block.keys() & keys) - len(block.keys() - keys)

  known = [block for block in blocks if block.get(key)]
  best = max(known, key=likeness, default={})
  return best[key] if best and likeness(best) > 0 else ""


def _blocks(path: pathlib.Path) -> list[dict[str, str]]:
  """The comment, or "", of each key of each group of fields in a file.

  A group is a dict, `{"epochs": 4, ...}`, or assignments to attributes of the
  same object, `train.epochs = 4`.
  """
  with tokenize.open(path) as file:
    text = file.read()
  beside, alone = {}, {}  # line -> comment
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      line, column = token.start
      where = beside if token.line[:column].strip() else alone
      where[line] = token.string.lstrip("#").strip()

  lines = text.split("\n")

  def comment(node: ast.expr | ast.stmt) -> str:
    line = node.lineno
    if lines[line - 1].encode()[: node.col_offset].strip():
      return ""  # of whatever begins the line
    if line in beside:
      return beside[line]
    above = []
    while (line := line - 1) in alone:
      above.insert(0, alone[line])
    return " ".join(above)

  blocks, objects = [], collections.defaultdict(dict)
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.Dict):
      named = [k for k in node.keys if isinstance(k, ast.Constant)]
      blocks.append({k.value: comment(k) for k in named})
    for target in node.targets if isinstance(node, ast.Assign) else ():
      if isinstance(target, ast.Attribute):
        group = objects[ast.unparse(target.value)]
        group[target.attr] = comment(node)
  return [*blocks, *objects.values()]
