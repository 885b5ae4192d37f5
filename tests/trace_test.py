"""Time by part: the parser on made-up traces, and on one of this machine."""

import collections
import types

import jax
import jax.numpy as jnp
import pytest

from ram_jax import trace

# f1 is fused of two attacks and an update; c1 stands in a loop of the
# augmentation; c2 has neither.
PROGRAM = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={()->f32[]}

%fused.1 (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %a1 = f32[8]{0} add(%p, %p), metadata={op_name="jit(step)/attack/jvp(M)/add"}
  %a2 = f32[8]{0} add(%p, %a1), metadata={op_name="jit(step)/vmap(attack)/mul"}
  ROOT %a3 = f32[8]{0} add(%a1, %a2), metadata={op_name="jit(step)/update/add"}
}

%body.1 (q: (s32[], f32[8])) -> (s32[], f32[8]) {
  %q = (s32[], f32[8]{0}) parameter(0)
  ROOT %c1 = (s32[], f32[8]{0}) copy(%q)
}

%cond.1 (r: (s32[], f32[8])) -> pred[] {
  %r = (s32[], f32[8]{0}) parameter(0)
  ROOT %less = pred[] compare(%r, %r), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(128)} parameter(0)
  %f1 = f32[8]{0:T(128)} fusion(%x), kind=kLoop, calls=%fused.1
  %w1 = (s32[], /*index=1*/f32[8]{0}) while(%t), condition=%cond.1, \
body=%body.1, metadata={op_name="jit(step)/augment/crop_flip/while"}
  %g1 = f32[8]{0} add(%x, %f1), \
metadata={op_name="jit(step)/transpose(jvp(forward))/vmap(attack)/add"}
  %r1 = f32[8]{0} all-reduce-start(%g1), to_apply=%cond.1, \
metadata={op_name="jit(step)/jvp(forward)/psum"}
  %u1 = f32[8]{0} add(%r1, %x), metadata={op_name="jit(step)/update/add"}
  %c2 = f32[8]{0} copy(%u1)
  %k1 = f32[8]{0} add(%c2, %c2), metadata={op_name="jit(step)/attack/add"}
  ROOT %d1 = f32[8]{0} add(%x, %x), metadata={op_name="jit(step)/key"}
}
""".replace("\\\n", "")


def test_parts_of_instructions():
  found = trace.parts(trace.read_program(PROGRAM))
  shown = ("f1", "w1", "c1", "g1", "r1", "u1", "c2", "k1", "d1")
  assert {name: found[name] for name in shown} == {
    "f1": "attack",
    "w1": "augmentation",
    "c1": "augmentation",
    "g1": "forward and backward",
    "r1": "communication",
    "u1": "update",
    "c2": "other",
    "k1": "attack",
    "d1": "other",
  }


def event(name, start, end, **stats):
  return types.SimpleNamespace(
    name=name, start_ns=start, end_ns=end, stats=list(stats.items())
  )


def plane(name, **lines):
  lines = [types.SimpleNamespace(name=n, events=e) for n, e in lines.items()]
  return types.SimpleNamespace(name=name, lines=lines)


# On each platform one device is 2 s in f1 and 3 s in the loop w1, of which c1
# takes 1 s; what else there is must not count.
S = 1e9
TPU = [
  plane(
    "/device:TPU:0",
    **{
      "XLA Modules": [event("jit_step(7)", 0, 5 * S)],
      "XLA Ops": [
        event("%f1 = f32[8]{0:T(128)} fusion(%x), kind=kLoop", 0, 2 * S),
        event("w1", 2 * S, 5 * S),
        event("c1", 3 * S, 4 * S),
      ],
      "Async XLA Ops": [event("u1", 0, 5 * S)],
    },
  ),
  plane("/host:CPU", python=[event("dispatch", 0, 9 * S)]),
]
GPU = [
  plane(
    "/device:GPU:0",
    **{
      "Stream #13(Compute)": [
        event("loop_fusion_kernel", 0, 2 * S, hlo_op="f1", hlo_module="m"),
        event("while_kernel", 2 * S, 3 * S, hlo_op="w1"),
        event("copy_kernel", 3 * S, 4 * S, hlo_op="c1"),
        event("while_kernel", 4 * S, 5 * S, hlo_op="w1"),
      ],
      "Stream #14(MemcpyH2D)": [event("MemcpyH2D", 0, 5 * S)],
    },
  ),
  plane("/host:CPU", python=[event("dispatch", 0, 9 * S)]),
]
# c1 begins on one thread and ends on another; so does the loop around it.
CPU = [
  plane(
    "/host:CPU",
    one=[
      event("f1", 0, 2 * S, hlo_op="f1", device_ordinal=0, _p=5),
      event("end: f1", 2 * S, 2 * S, _c=5),
      event("w1", 2 * S, 2.5 * S, hlo_op="w1", device_ordinal=0, _p=6),
      event("end: c1", 4 * S, 4 * S, _c=7),
    ],
    two=[
      event("ThunkExecutor::Execute", 0, 9 * S),
      event("c1", 3 * S, 3.5 * S, hlo_op="c1", device_ordinal=0, _p=7),
      event("end: w1", 4.75 * S, 5 * S, _c=6),
    ],
  ),
]


@pytest.mark.parametrize("planes", [TPU, GPU, CPU], ids=["TPU", "GPU", "CPU"])
def test_each_platforms_layout(planes):
  profile = types.SimpleNamespace(planes=planes)
  total = trace.by_part(PROGRAM, profile)
  assert {name: time for name, time in total.items() if time} == {
    "attack": pytest.approx(2),
    "augmentation": pytest.approx(3),
  }
  found = trace.busy_time(trace.events(profile), {"w1"})
  assert found == {"f1": 2 * S, "w1": 2 * S, "c1": S}


def test_every_moment_counts_once_for_each_device():
  rows = [
    # A loop in a loop; a and b share 10 to 14; nothing runs from 20 to 30.
    ("0", "outer", 0, 20),
    ("0", "inner", 4, 18),
    ("0", "a", 6, 14),
    ("0", "b", 10, 16),
    ("0", "a", 30, 31),
    # Another device, at the same time.
    ("1", "a", 0, 20),
  ]
  found = trace.busy_time(
    [trace.Event(*row) for row in rows], ("outer", "inner")
  )
  # outer 0-4, 18-20; inner 4-6, 16-18; a 6-10, half of 10-14; b that, 14-16.
  assert found == {"outer": 6, "inner": 4, "a": 6 + 1 + 20, "b": 4}


def test_scopes_of_a_real_trace(tmp_path):
  """By counts and by which event is in which: times depend on the machine."""

  def repeat(scope, x, times):
    with jax.named_scope(scope):
      return jax.lax.fori_loop(0, times, lambda _, y: jnp.tanh(y @ x), x)

  @jax.jit
  def step(x):
    return repeat("attack", repeat("update", x, 10), 90)

  x = jnp.eye(64)  # the compiler calls smaller loops without a trace of them
  program = step.lower(x).compile()
  program(x).block_until_ready()
  with jax.profiler.trace(tmp_path):
    for _ in range(5):
      program(x).block_until_ready()
  (path,) = tmp_path.rglob("*.xplane.pb")
  profile = jax.profiler.ProfileData.from_file(str(path))
  rows = trace.read_program(program.as_text())
  parts, found = trace.parts(rows), list(trace.events(profile))
  runs = collections.Counter(event.name for event in found)
  most = {"attack": 5 * 90, "update": 5 * 10, "other": 5}
  for part, count in most.items():
    assert max(n for name, n in runs.items() if parts[name] == part) == count
  total = trace.by_part(program.as_text(), profile)
  assert {part for part, time in total.items() if time} == set(most)
  # The time of a loop is that of all that runs in it.
  for part in ("attack", "update"):
    (loop,) = [n for n in runs if parts[n] == part and "while" in n]
    inside = [event for event in found if event.name == loop]
    seconds = sum(event.end - event.start for event in inside) / 1e9
    assert total[part] >= seconds * (1 - 1e-9)
  first, last = min(e.start for e in found), max(e.end for e in found)
  assert sum(total.values()) <= (last - first) / 1e9
