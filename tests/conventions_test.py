"""Conventions of the code base, checked by reading the source."""

import ast
import collections
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
CODE = sorted(
  path.relative_to(ROOT)
  for path in (
    ROOT / "main.py",
    *(ROOT / "benchmarks").rglob("*.py"),
    *(ROOT / "configs").rglob("*.py"),
    *(ROOT / "ram_jax").rglob("*.py"),
  )
)
# As in docs/design.md: a file imports lower layers or its own folder.
LAYERS = (
  ("contracts", "image", "losses", "keys", "checks"),
  ("augment", "attacks", "corruptions", "models"),
  ("methods",),
  ("parallel", "plugins", "memory", "trace"),
  ("data",),
  ("runs",),
  ("interop", "report"),
  ("training", "evaluation"),
  ("resolution", "experiment", "command_line"),
  ("corrupt", "profiling", "sweep", "flags"),
)
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}
PURE = 3  # layers below this one see arrays, keys and dataclasses only
# What a pure layer may import beside ram_jax.
PURE_IMPORTS = {
  "PIL",
  "collections",
  "contextlib",
  "dataclasses",
  "flax",
  "functools",
  "jax",
  "math",
  "numbers",
  "numpy",
  "scipy",
  "typing",
}
MAX_LINES = 600  # a module is split by topic, not because it is long
PACKAGE = [
  path
  for path in CODE
  if path.parts[0] == "ram_jax" and path.name != "__init__.py"
]
FLOAT_MATH = [
  path
  for path in PACKAGE
  if path.parts[1] in ("models", "attacks", "losses.py")
]


def source(path):
  return (ROOT / path).read_text()


def tree(path):
  return ast.parse(source(path))


def place(path):
  """The folder or file right below ram_jax/ that a path belongs to."""
  return path.parts[1].removesuffix(".py")


def imported(node_tree):
  """Dotted names of all imports, at any nesting level."""
  for node in ast.walk(node_tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are absolute"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(path, names):
  """Names imported from higher layers, or from other folders of the layer."""
  here = place(path)
  level = LEVEL[here]
  wrong = []
  for name in names:
    package, _, rest = name.partition(".")
    if package in ("main", "configs", "tests"):
      wrong.append(name)
    elif package == "ram_jax":
      there = rest.split(".")[0]
      own = there == here or (ROOT / "ram_jax" / f"{there}.py").exists()
      above = LEVEL[there] > level
      if above or (LEVEL[there] == level and not own):
        wrong.append(name)
  return wrong


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_imports_point_downwards(path):
  assert place(path) in LEVEL, f"{path} has no layer: give it one, in the docs"
  names = list(imported(tree(path)))
  assert upward(path, names) == []
  if LEVEL[place(path)] < PURE:
    foreign = {name.split(".")[0] for name in names} - {"ram_jax"}
    assert foreign <= PURE_IMPORTS
    assert not re.search(r"\bdevices\(|default_backend|open\(", source(path))


@pytest.mark.parametrize("path", PACKAGE, ids=str)
def test_only_main_imports_report(path):
  """It only reads the files of runs and computes no results."""
  there = {n.split(".")[1] for n in imported(tree(path)) if "ram_jax." in n}
  if place(path) == "report":
    assert there <= {"report", "runs", "contracts", "corruptions"}
  else:
    assert "report" not in there


def test_upward_imports_are_detected():
  path = pathlib.Path("ram_jax/methods/standard.py")
  names = [
    "ram_jax.losses",
    "ram_jax.attacks.pgd.Attack",
    "ram_jax.training.loop",
  ]
  names += ["ram_jax.data.pipeline", "configs.default", "jax.numpy"]
  assert upward(path, names) == names[2:5]
  assert upward(pathlib.Path("ram_jax/models/resnet.py"), names[:2]) == [
    "ram_jax.attacks.pgd.Attack"
  ]


def test_layers_match_the_design_page():
  text = (ROOT / "docs" / "design.md").read_text()
  rows = dict(re.findall(r"^L(\d+)  +(.*)$", text, re.MULTILINE))
  assert len(rows) == len(LAYERS) + 1  # and main.py on top
  for path in PACKAGE:
    here = place(path)
    assert re.search(rf"\b{here}\b", rows[str(LEVEL[here])]), here


def defined(path):
  """Names of a file's functions and classes; of methods as Class.method."""
  kinds = (ast.ClassDef, ast.FunctionDef)
  for node in tree(path).body:
    if isinstance(node, kinds):
      yield node.name
      for part in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(part, kinds):
          yield f"{node.name}.{part.name}"


def test_paper_map_refers_to_existing_code():
  text = (ROOT / "docs" / "paper_map.md").read_text()
  found = re.findall(r"`([\w/]+\.py)?(::?)([\w.]+)`", text)
  last, kinds = None, collections.Counter()
  for name, colons, part in found:
    last = name or last  # `::test` alone is of the file named last
    place = "tests" if colons == "::" else "ram_jax"
    path = pathlib.Path("" if last.startswith("benchmarks/") else place) / last
    assert (ROOT / path).exists(), f"there is no {path}"
    assert part in set(defined(path)), f"{path} has no {part}"
    kinds[colons] += 1
  assert min(kinds["::"], kinds[":"]) > 20  # the pattern matches references
  for path in re.findall(r"`(?:python )?([\w/]+\.py)`", text):
    assert (ROOT / path).exists() or (ROOT / "ram_jax" / path).exists(), path


# Unidiomatic words, and what to write instead.
UNIDIOMATIC = {
  r"go(es|ing)? on (from|where|behind|exactly)": "resume",
  r"the same command goes": "the same command resumes",
  r"\bmend(s|ed)?\b": "fix, repair",
  r"\bstrangers?\b": "untrusted",
  r"\brightly\b": "correctly",
  r"\bwritten out\b": "unrolled",
  r"\bsurroundings\b": "environment",
  r"\bmeasured again\b": "evaluated again",
  r"\brefus(e|es|ed|al)\b": "reject",
  r"\bthe same bits\b": "bit-identical",
  r"\bhears? no signal\b": "ignores the signal",
  r"\b(?<!it )lies? (on disk|on the device|beside|there)\b": "is, is stored",
}
PAGES = [
  path.relative_to(ROOT)
  for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
]


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=str)
def test_plain_english(path):
  text = " ".join(source(path).split())
  found = [
    f"{match[0]!r}: write {instead!r}"
    for pattern, instead in UNIDIOMATIC.items()
    for match in re.finditer(pattern, text, re.IGNORECASE)
  ]
  assert not found, found


def definitions(path):
  """(is public, node) of functions, classes and methods, not nested ones."""
  kinds = (ast.ClassDef, ast.FunctionDef)
  for node in tree(path).body:
    if not isinstance(node, kinds):
      continue
    public = not node.name.startswith("_")
    yield public, node
    for part in node.body if isinstance(node, ast.ClassDef) else ():
      if isinstance(part, kinds):
        shown = part.name == "__call__" or not part.name.startswith("_")
        yield public and shown, part


@pytest.mark.parametrize("path", CODE, ids=str)
def test_documented_and_typed(path):
  module = tree(path)
  if path.name != "__init__.py":
    assert ast.get_docstring(module), f"{path} has no docstring"
  for public, node in definitions(path):
    if public:
      assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
    if isinstance(node, ast.FunctionDef):
      arguments = node.args
      named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
      named += filter(None, [arguments.vararg, arguments.kwarg])
      bare = [a.arg for a in named if a.annotation is None]
      assert set(bare) <= {"self", "cls"}, f"{path}: {node.name} {bare}"
      assert node.returns, f"{path}: {node.name} returns what?"


@pytest.mark.parametrize("path", CODE, ids=str)
def test_short_and_strict(path):
  text = source(path)
  assert len(text.splitlines()) <= MAX_LINES
  assert not re.search(r"\bconfig(\.\w+)*\.get\(", text), "hidden defaults"
  assert not re.search(r"\b(eval|exec)\(", text)
  assert not re.search(r"(/work/|/home/|/root/|/tmp/)", text)


@pytest.mark.parametrize("path", CODE, ids=str)
def test_text_files_specify_an_encoding(path):
  """The default depends on the locale: ASCII under LC_ALL=C."""
  for node in ast.walk(tree(path)):
    if not isinstance(node, ast.Call):
      continue
    function = getattr(node.func, "attr", getattr(node.func, "id", ""))
    strings = {getattr(part, "value", None) for part in node.args}
    text = function in ("read_text", "write_text")
    if function == "open":  # others' methods, as of Image, take no such mode
      binary = strings & {"rb", "wb", "ab"}
      text = isinstance(node.func, ast.Name) and not binary
      text = text or strings & {"r", "w", "a"}
    if text:
      names = {part.arg for part in node.keywords}
      assert "encoding" in names, f"{path}: line {node.lineno}"


@pytest.mark.parametrize("path", CODE, ids=str)
def test_only_parallel_uses_the_device_axis(path):
  if path.name == "parallel.py":
    return
  names, strings = set(), set()
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.Attribute):
      names.add(node.attr)
    elif isinstance(node, ast.Name):
      names.add(node.id)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      strings.add(node.value)
  assert not names & {"pmap", "shard_map", "axis_index", "Mesh"}
  assert "devices" not in strings


@pytest.mark.parametrize(
  ("kind", "scope"), [("Augment", "augment"), ("Attack", "attack")]
)
def test_plug_ins_have_profiler_scopes(kind, scope):
  found = [
    (path, part)
    for path in PACKAGE
    if path.name != "contracts.py"
    for node in tree(path).body
    if isinstance(node, ast.ClassDef) and node.name == kind
    for part in node.body
    if getattr(part, "name", "") == "__call__"
  ]
  assert found
  for path, part in found:
    around = [ast.unparse(row) for row in part.decorator_list]
    assert around == [f"jax.named_scope('{scope}')"], path


@pytest.mark.parametrize("path", FLOAT_MATH, ids=str)
def test_no_float32_literals(path):
  for node in ast.walk(tree(path)):
    name = getattr(node, "attr", getattr(node, "id", None))
    if isinstance(node, ast.Constant):
      name = node.value
    assert name not in ("float32", "f4", "single"), f"line {node.lineno}"
