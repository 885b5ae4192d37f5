"""Computes the time of each part from a trace and a compiled program.

A part is a `jax.named_scope` of the step. XLA stores the scopes in the
`op_name` of what it compiles, including fusions and gradients, but not of what
it adds.
"""

import collections
import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

# Name of each part by scope. The outermost of nested scopes counts.
PARTS = {
  "crop_flip": "crop and flip",
  "augment": "augmentation",
  "attack": "attack",
  "forward": "forward and backward",
  "update": "update",
  "communication": "communication",
}
OTHER = "other"
COLLECTIVE = re.compile("all-(reduce|gather|to-all)|reduce-scatter|collective-")
# Their time is that of the instructions that they run.
CONTAINERS = ("while", "call", "conditional")
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|computations?)="
  r"\{?(%[\w.\-]+(?:, %[\w.\-]+)*)"
)
# `end: NAME`, on any thread, ends the event with the same flow number.
_END = "end: "


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction of a compiled program.

  Attributes:
    opcode: such as `fusion`.
    op_name: scopes and operation in its metadata, if any.
    inside: name of the computation that contains it.
    calls: names of the computations that it calls.
    text: what follows its name.
  """

  opcode: str
  op_name: str
  inside: str
  calls: list[str]
  text: str

  @property
  def scope(self) -> str | None:
    """The outermost key of `PARTS` in its name, or `OTHER` if there is none.

    It is None if the compiler added the instruction, and for arguments and the
    functions of reductions, whose names contain no scope.
    """
    if COLLECTIVE.match(self.opcode):
      return "communication"
    # jit(f)/transpose(jvp(forward))/vmap(g)/add
    words = re.split(r"[/()]", self.op_name)
    unnamed = OTHER if "/" in self.op_name else None
    return next((word for word in words if word in PARTS), unnamed)


class Event(NamedTuple):
  """One execution of an instruction; times in ns on the device's clock."""

  device: str
  name: str
  start: float
  end: float


def read_program(text: str) -> dict[str, Instruction]:
  """Reads the instructions of a compiled program.

  Args:
    text: from `compiled.as_text()`.

  Returns:
    The instructions of all computations by name.
  """
  found, inside = {}, ""
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      inside = match[1]
    elif match := _INSTRUCTION.match(line):
      found[match[1]] = _instruction(match[2], inside)
  return found


def _instruction(text: str, inside: str) -> Instruction:
  opcode, op_name = _OPCODE.search(text), _OP_NAME.search(text)
  return Instruction(
    opcode=opcode[1] if opcode else "",
    op_name=op_name[1] if op_name else "",
    inside=inside,
    calls=[x for row in _CALLED.findall(text) for x in _NAME.findall(row)],
    text=text,
  )


def parts(program: dict[str, Instruction]) -> dict[str, str]:
  """Attributes every instruction to a part.

  A collective is communication, regardless of its scope. A fusion has the scope
  of its name, or of most of its instructions. What the compiler added, such as
  a copy, belongs to the loop around it, or to the first instruction that needs
  its result, or to those that it depends on.

  Args:
    program: from `read_program`, in the order of the text: computations before
      their callers, and instructions before their users.

  Returns:
    Value of `PARTS`, or `OTHER`, by instruction.
  """
  own, made, needed, operands = _scopes(program), {}, {}, {}
  for name, row in program.items():
    names = (x for x in _NAME.findall(row.text) if x in program)
    operands[name] = [x for x in names if program[x].inside == row.inside]
    found = (made[x] for x in operands[name] if made.get(x) in PARTS)
    made[name] = own[name] or next(found, None)
  callers = {x: name for name, row in program.items() for x in row.calls}
  for name, row in reversed(program.items()):
    around = needed.get(callers.get(row.inside))
    added = around if around in PARTS else needed.get(name)
    needed[name] = own[name] or added
    if needed[name] in PARTS:
      needed |= dict.fromkeys(operands[name], needed[name])
  return {x: PARTS.get(needed[x] or made[x], OTHER) for x in program}


def _scopes(program: dict[str, Instruction]) -> dict[str, str | None]:
  """An instruction's own scope, or that of most instructions fused into it."""
  scopes, inner = {}, collections.defaultdict(collections.Counter)
  for name, row in program.items():
    fused = () if row.opcode in CONTAINERS else row.calls
    counts = sum((inner[x] for x in fused), collections.Counter())
    found = [row.scope, *(scope for scope, _ in counts.most_common())]
    unnamed = OTHER if OTHER in found else None
    scopes[name] = next((x for x in found if x in PARTS), unnamed)
    inner[row.inside][scopes[name]] += 1
  return scopes


def events(profile: Any, program: dict[str, Instruction]) -> Iterator[Event]:
  """Finds executed instructions in a trace, whose layout varies by platform.

  TPUs have a plane per device, with the instructions in the line `XLA Ops`.
  GPUs have a plane per device with a line per stream. CPUs have one plane for
  all devices, with a line per thread.

  Args:
    profile: a `jax.profiler.ProfileData`. The caller must keep a reference,
      because its planes are only valid as long as it exists.
    program: from `read_program`.

  Yields:
    The events, in no particular order.
  """
  for plane in profile.planes:
    if plane.name == "/host:CPU":
      yield from _cpu_events(plane)
    for line in plane.lines:
      if plane.name.startswith("/device:TPU") and line.name == "XLA Ops":
        for event in line.events:
          # May be the name or the whole instruction: %add.1 = f32[8] add(…
          name = event.name.split(" = ")[0].lstrip("%")
          yield Event(plane.name, name, event.start_ns, event.end_ns)
      if plane.name.startswith("/device:GPU") and "Stream" in line.name:
        for name, event in _kernels(line, program):
          yield Event(plane.name, name, event.start_ns, event.end_ns)


def _kernels(
  line: Any, program: dict[str, Instruction]
) -> Iterator[tuple[str, Any]]:
  """Instruction and event of everything that a stream of a GPU runs.

  An event of a kernel in a CUDA graph names the graph, not the instruction. XLA
  names its own kernels after the first instruction that uses them. A
  library's kernel is attributed to the instruction that ran before it.
  """
  named = {re.sub(r"\W", "_", name): name for name in reversed(program)}
  last = ""
  for event in sorted(line.events, key=lambda event: event.start_ns):
    stats = dict(event.stats)
    if "hlo_op" in stats or "kernel_details" in stats:
      last = named.get(event.name, last)
      last = stats["hlo_op"] if stats.get("hlo_op") in program else last
      yield last, event


def _cpu_events(plane: Any) -> Iterator[Event]:
  """The events of a CPU, which may begin and end on different threads."""
  ends, begun = {}, []
  for line in plane.lines:
    for event in line.events:
      if event.name.startswith(_END):
        ends[dict(event.stats).get("_c")] = event.end_ns
      elif "hlo_op" in (stats := dict(event.stats)):
        begun.append((event, stats))
  for event, stats in begun:
    end = max(event.end_ns, ends.get(stats.get("_p"), 0))
    device = str(stats.get("device_ordinal"))
    yield Event(device, stats["hlo_op"], event.start_ns, end)


def busy_time(
  found: Iterable[Event], containers: Collection[str]
) -> collections.Counter[str]:
  """Divides the busy time of the devices among instructions.

  Time counts once per device: instructions that run at the same time, on
  several threads or streams, share it equally, and a loop only counts while no
  instruction inside it runs. The sum is therefore the total busy time.

  Args:
    found: from `events`.
    containers: names of loops, calls and branches.

  Returns:
    Nanoseconds by instruction, summed over devices.
  """
  by_device = collections.defaultdict(list)
  for event in found:
    by_device[event.device].append(event)
  rows = (_device_busy_time(rows, containers) for rows in by_device.values())
  return sum(rows, collections.Counter())


def _device_busy_time(
  found: list[Event], containers: Collection[str]
) -> collections.Counter[str]:
  """Busy time by instruction on one device."""
  # An event without a duration would end before it starts.
  found = [event for event in found if event.end > event.start]
  # At equal times, ends are sorted before starts.
  turns = [(event.end, False, i) for i, event in enumerate(found)]
  turns += [(event.start, True, i) for i, event in enumerate(found)]
  total, now = collections.Counter(), 0.0
  running, around = {}, {}  # as ordered sets
  for time, starts, i in sorted(turns):
    # The innermost of nested containers is the one that started last.
    active = list(running) or list(around)[-1:]
    for j in active:
      total[found[j].name] += (time - now) / len(active)
    now = time
    chosen = around if found[i].name in containers else running
    if starts:
      chosen[i] = None
    else:
      chosen.pop(i, None)
  return total


def by_part(text: str, profile: Any) -> dict[str, float]:
  """The time that devices spend in each part of a traced program.

  Args:
    text: from `compiled.as_text()`.
    profile: a `jax.profiler.ProfileData` of only that program.

  Returns:
    Seconds by value of `PARTS` and `OTHER`, summed over devices.
  """
  program = read_program(text)
  part = parts(program)
  containers = {n for n, row in program.items() if row.opcode in CONTAINERS}
  total = dict.fromkeys((*PARTS.values(), OTHER), 0.0)
  found = events(profile, program)
  for name, time in busy_time(found, containers).items():
    total[part.get(name, OTHER)] += time / 1e9
  return total
