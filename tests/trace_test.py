"""Time by part: the parser on made-up traces, and on one of this machine."""

import collections
import types

import jax
import jax.numpy as jnp
import pytest

from ram_jax import trace

# f1 is fused of two attacks and an update; c1 stands in a loop of the
# augmentation. The compiler added t1 and c2 for k1, c3 and c4 for the result of
# the loop, which the update needs, and c5, which only the result needs.
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
  %c3 = f32[8]{0} get-tuple-element(%w1), index=1
  %c4 = f32[8]{0} copy(%c3)
  %u1 = f32[8]{0} add(%r1, %c4), metadata={op_name="jit(step)/update/add"}
  %t1 = f32[8]{0} transpose(%u1), dimensions={0}
  %c2 = f32[8]{0} copy(%t1)
  %k1 = f32[8]{0} add(%c2, %c2), metadata={op_name="jit(step)/attack/add"}
  %d1 = f32[8]{0} add(%x, %x), metadata={op_name="jit(step)/key"}
  %c5 = f32[8]{0} copy(%u1)
  %c6 = f32[8]{0} copy(%x)
  ROOT %o1 = (f32[8]{0}, f32[8]{0}, f32[8]{0}) tuple(%d1, %c5, %c6)
}
""".replace("\\\n", "")


def test_parts_of_instructions():
  found = trace.parts(trace.read_program(PROGRAM))
  assert {name: found[name] for name in found if name[1:].isdigit()} == {
    "a1": "attack",
    "a2": "attack",
    "a3": "update",
    "f1": "attack",
    "w1": "augmentation",
    "c1": "augmentation",
    "g1": "forward and backward",
    "r1": "communication",
    "c3": "update",
    "c4": "update",
    "u1": "update",
    "t1": "attack",
    "c2": "attack",
    "k1": "attack",
    "d1": "other",
    "c5": "update",
    "c6": "other",
    "o1": "update",
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
      "CUPTI overhead": [event("BUFFER_FLUSH", 0, 9 * S)],
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
  found = trace.events(profile, trace.read_program(PROGRAM))
  found = trace.busy_time(found, {"w1"})
  assert found == {"f1": 2 * S, "w1": 2 * S, "c1": S}


# What XLA compiles for a GPU, shortened.
GPU_PROGRAM = """
HloModule jit__fun, is_scheduled=true

ENTRY %main.9 (p: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0), metadata={op_name="x" scheduling_name="p"}
  %cudnn-conv.24 = (bf16[8,8]{1,0}, u8[0]{0}) custom-call(%p, %p), \
custom_call_target="__cudnn$convForward", metadata={op_name="jit(_fun)/while/\
body/eval_jaxpr/attack/while/body/jvp(Model)/conv_general_dilated"}
  %get-tuple-element.1.0 = bf16[8,8]{1,0} get-tuple-element(%cudnn-conv.24), \
index=0, metadata={scheduling_name="get-tuple-element.1.0"}
  %wrapped_transpose.2 = bf16[8,8]{0,1} fusion(%get-tuple-element.1.0), \
kind=kInput, calls=%wrapped, metadata={scheduling_name="wrapped_transpose.2"}
  %loop_add_fusion.3 = bf16[8,8]{1,0} fusion(%wrapped_transpose.2), kind=kLoop,\
 calls=%add, metadata={op_name="jit(_fun)/while/body/transpose(jvp(forward))/a"}
  %cudnn-conv-bw-filter.5.0 = (bf16[8,8]{1,0}, u8[0]{0}) custom-call(%p), \
metadata={op_name="jit(_fun)/while/body/transpose(jvp(forward))/conv"}
  ROOT %loop_add_fusion.4 = bf16[8,8]{1,0} fusion(%cudnn-conv-bw-filter.5.0), \
kind=kLoop, calls=%add, metadata={op_name="jit(_fun)/while/body/update/add"}
}
""".replace("\\\n", "")


def xplane(plane, line, rows):
  """A trace in the profiler's format; rows are (name, ns, stats)."""
  text = f'planes {{ name: "{plane}" lines {{ name: "{line}" '
  ids, start = {}, 0
  for name, time, stats in rows:
    number = ids.setdefault(("event", name), len(ids) + 1)
    text += f"events {{ metadata_id: {number} offset_ps: {start}000 "
    text += f"duration_ps: {time}000 "
    for stat in stats.items():
      key, value = (ids.setdefault(("stat", x), len(ids) + 1) for x in stat)
      text += f"stats {{ metadata_id: {key} ref_value: {value} }} "
    text, start = text + "} ", start + time
  text += "} "
  for (kind, name), number in ids.items():
    text += f"{kind}_metadata {{ key: {number} "
    text += f'value {{ id: {number} name: "{name}" }} }} '
  return jax.profiler.ProfileData.from_text_proto(text + "}")


def test_kernels_in_cuda_graphs():
  """As the profiler's cupti_collector.cc writes them; not from a GPU."""
  kernel = {"hlo_module": "jit__fun", "tf_op": "XlaModule:"}
  kernel |= {"kernel_details": "regs:32 grid:1,1,1"}
  graph = kernel | {"hlo_op": "command_buffer", "cuda_graph_id": "7"}
  rows = [
    ("sm90_xmma_fprop", 100, kernel | {"hlo_op": "cudnn-conv.24"}),
    # For the next kernel, not for the one before it.
    ("wrapped_transpose_2", 7, graph),
    ("loop_add_fusion_3", 30, graph),
    # Of a library, which launches several.
    ("cudnn_nchwToNhwcKernel", 2, graph),
    ("sm90_xmma_wgrad", 40, graph),
    ("loop_add_fusion_4", 5, graph),
    ("MemcpyD2D", 3, kernel | {"hlo_op": "loop_add_fusion.4"}),
    ("MemcpyH2D", 1000, {"memcpy_details": "size:8"}),
    ("unknown", 1, {"kernel_details": "regs:8"}),
  ]
  profile = xplane("/device:GPU:0", "Stream #13(Kernel)", rows)
  total = trace.by_part(GPU_PROGRAM, profile)
  assert {name: round(time * 1e9) for name, time in total.items() if time} == {
    "attack": 100,
    "forward and backward": 7 + 30 + 2 + 40,
    "update": 5 + 3 + 1,
  }
  profile = xplane("/device:GPU:0", "Stream #13(Kernel)", rows[-1:])
  total = trace.by_part(GPU_PROGRAM, profile)
  assert {name for name, time in total.items() if time} == {"other"}


def test_every_moment_counts_once_for_each_device():
  rows = [
    # A loop in a loop; a and b share 10 to 14; nothing runs from 20 to 30.
    ("0", "outer", 0, 20),
    ("0", "inner", 4, 18),
    ("0", "a", 6, 14),
    ("0", "b", 10, 16),
    ("0", "a", 30, 31),
    ("0", "b", 2, 2),  # does not share the time of the others
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
    return repeat("attack", repeat("update", x @ x, 10), 90)

  x = jnp.eye(64)  # the compiler calls smaller loops without a trace of them
  program = step.lower(x).compile()
  program(x).block_until_ready()
  with jax.profiler.trace(tmp_path):
    for _ in range(5):
      program(x).block_until_ready()
  (path,) = tmp_path.rglob("*.xplane.pb")
  profile = jax.profiler.ProfileData.from_file(str(path))
  rows = trace.read_program(program.as_text())
  parts, found = trace.parts(rows), list(trace.events(profile, rows))
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
