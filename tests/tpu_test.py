"""Estimates of the TPU compiler: reading them, and the compiler itself."""

import importlib.metadata
import importlib.util
import json

import jax
import numpy as np
import pytest

from benchmarks import performance, tpu, tpu_text
from configs import standard
from ram_jax import experiment, parallel, trace
from ram_jax.data import digits, feed
from ram_jax.training import loop as train

# A dispatch of 10 steps, each with 7 of the attack and an inner loop of unknown
# length. Cycles of fused instructions (%n) do not count on their own.
PROGRAM = """
HloModule jit__fun, is_scheduled=true

%fused.1 (p: u8[50,12], q: s32[4]) -> u8[4,12] {
  %p = u8[50,12]{1,0:T(8,128)(4,1)} parameter(0)
  %q = s32[4]{0:T(128)} parameter(1)
  ROOT %n = u8[4,12]{1,0} gather(%p, %q), estimated_cycles="7"
}

%body.open (c: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = (s32[], f32[8]) parameter(0)
  ROOT %c1 = (s32[], f32[8]) copy(%c), estimated={"estimated_cycles":"5"}
}

%open (d: (s32[], f32[8])) -> pred[] {
  %d = (s32[], f32[8]) parameter(0)
  %x = s32[] get-tuple-element(%d), index=0
  %y = s32[] get-tuple-element(%d), index=1
  ROOT %ne = pred[] compare(%x, %y), direction=LT
}

%body.attack (a: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %f1 = bf16[4,8]{1,0:T(8,128)(2,1)} fusion(%a), kind=kOutput, calls=%fused.1, \
metadata={op_name="jit(_fun)/while/body/attack/while/body/conv"}, \
backend_config={"window_config":{"estimated_cycles":"100"}}
  %w0 = (s32[], f32[8]) while(%a), condition=%open, body=%body.open
  ROOT %t1 = (s32[], f32[8]) tuple(%a, %f1)
}

%cond.attack (b: (s32[], f32[8])) -> pred[] {
  %seven = s32[]{:T(128)} constant(7)
  %b = (s32[]{:T(128)}, f32[8]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %seven), direction=LT
}

%body.step (e: (s32[], f32[8])) -> (s32[], f32[8]) {
  %e = (s32[], f32[8]) parameter(0)
  %eleven = s32[] constant(11)
  %less = pred[] compare(%e, %eleven), direction=LT
  %g1 = u8[4,12]{1,0:T(8,128)(4,1)} fusion(%e), kind=kLoop, calls=%fused.1, \
metadata={op_name="jit(_fun)/while/body/crop_flip/gather"}
  %w1 = (s32[], f32[8]) while(%e), condition=%cond.attack, body=%body.attack, \
metadata={op_name="jit(_fun)/while/body/attack/while"}
  %r1 = f32[3,16]{0,1:T(8,128)S(1)} all-reduce(%g1), to_apply=%fused.1, \
backend_config={"estimated_cycles":"9"}
  %b1 = f32[8]{0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %t2 = (s32[], f32[8]) tuple(%e, %w1)
}

%cond.step (h: (s32[], f32[8])) -> pred[] {
  %ten = s32[] constant(10)
  %h = (s32[], f32[8]) parameter(0)
  %j = s32[] get-tuple-element(%h), index=0
  ROOT %lt2 = pred[] compare(s32[] %j, s32[] %ten), direction=LT
}

ENTRY %main.9 (x: u8[50,12]) -> (s32[], f32[8]) {
  %x = u8[50,12]{1,0:T(8,128)(4,1)} parameter(0)
  %copy.1 = u8[50,12]{1,0:T(8,128)(4,1)} copy(%x), \
backend_config={"estimated_cycles":"4000"}
  ROOT %w2 = (s32[], f32[8]) while(%x), condition=%cond.step, body=%body.step
}
""".replace("\\\n", "")


def test_reads_cycles_bytes_and_loops():
  found = tpu_text.estimates(PROGRAM, steps=10)
  # By hand: 4000 once in 10 steps; 9 in each step; in each of 7 steps of the
  # attack 100, and 5 in one iteration of the loop of unknown length.
  assert found["parts"] == {
    "attack": 7 * (100 + 5),
    "other": 400,
    "communication": 9,
  }
  assert found["cycles"] == 7 * 105 + 400 + 9
  assert found["collectives"] == {"count": 1, "bytes": 3 * 16 * 4}
  longest = [(row["name"], row["cycles"]) for row in found["longest"]]
  assert longest == [("f1", 700), ("copy.1", 400), ("c1", 35), ("r1", 9)]
  assert found["longest"][0]["shape"] == "bf16[4,8]"
  assert found["longest"][0]["times"] == 7
  assert [(r["name"], r["bytes"]) for r in found["unknown"]] == [("g1", 48)]
  assert found["without_estimate"] == 1
  assert [row["name"] for row in found["loops"]] == ["w0"]


def test_page_has_a_table_of_each_file(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2")
  case = {"program": "train", "model": "resnet18", "method": "standard"}
  case |= {"chips": 4, "batch_size": 128}
  memory = {"argument": 1.5, "temp": 2.5}
  accepted = case | {"memory_mib": memory} | tpu_text.estimates(PROGRAM, 10)
  rejected = case | {"program": "clean", "method": None, "error": "no"}
  for row in (accepted, rejected):
    for _ in range(2):  # a case has one row
      tpu.write("v5e:2x2", row, tmp_path)
  path = tmp_path / "tpu_v5e_2x2.json"
  assert len(json.loads(path.read_text())["rows"]) == 2
  page = performance.page("text\n\n" + performance.MARK, tmp_path)
  assert (
    "Estimates of the TPU compiler (libtpu 1.2, jax 1.2) for v5e:2x2" in page
  )
  assert "| resnet18, 128 | standard | 4 | 0.00114 | 0 |" in page
  assert "| resnet18, 128 |  | 4 | clean | rejected |" in page


def training(devices=None):
  """Training with a small network, its data set and its arguments."""
  config = standard.get_config()
  config.train.update(batch_size=8, steps_per_dispatch=2)
  config.train.update(unroll=False, dtype="bfloat16")
  config = experiment.resolve(config)
  shape = (4096, 32, 32, 3)
  built = train.build(config, digits.Source(), shape, devices=devices)
  data = feed.as_rows(
    {"images": np.zeros(shape, np.uint8), "labels": np.zeros(4096, np.int32)}
  )
  data = jax.eval_shape(lambda: data)
  state, settings = jax.eval_shape(lambda: (built.create(), built.settings))
  indices = jax.ShapeDtypeStruct((1, 2, 8), np.int32)
  return built, (state, data, settings, indices)


def copies_of_the_data(text, size):
  """Instructions whose result is as large as the data set."""
  passed_on = ("parameter", "tuple", "get-tuple-element", "while", "bitcast")
  passed_on += ("opt-barrier", "call")
  return [
    name
    for name, row in trace.read_program(text).items()
    if row.opcode not in passed_on and tpu_text.size(row) >= size
  ]


@pytest.mark.usefixtures("tiny_network")
def test_no_dispatch_copies_the_data_set():
  built, arguments = training(jax.local_devices()[:1])
  text = built.dispatch.lower(*arguments).compile().as_text()
  assert "u8[4096,3072]" in text
  assert copies_of_the_data(text, 4096 * 3072) == []
  assert copies_of_the_data(PROGRAM, 50 * 12) == ["copy.1"]


needs_libtpu = pytest.mark.skipif(
  not importlib.util.find_spec("libtpu"),
  reason='needs pip install "jax[tpu]" in an environment of its own',
)


@needs_libtpu
@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("chips", [1, 4])
def test_compiles_for_a_tpu(chips):
  devices = tpu.chips("v5e:2x2", chips)
  built, arguments = training(devices)
  indices = jax.ShapeDtypeStruct((chips, 2, 8 // chips), np.int32)
  compiled = built.dispatch.lower(*arguments[:-1], indices).compile()
  text = compiled.as_text()
  assert copies_of_the_data(text, 4096 * 3072) == []
  found = tpu_text.estimates(text, 2)
  assert not found["loops"]
  assert {"forward and backward", "crop and flip", "update"} <= set(
    found["parts"]
  )
  assert bool(found["collectives"]) == (chips > 1)
  weights = sum(x.size for x in jax.tree.leaves(arguments[0].params))
  if chips > 1:  # float32 gradients, and a few statistics
    assert 4 * weights <= found["collectives"]["bytes"] <= 8 * weights


@needs_libtpu
@pytest.mark.usefixtures("tiny_network")
@pytest.mark.parametrize("program", ["clean", "apgd-ce/l2/several"])
def test_evaluation_compiles_for_a_tpu(program):
  case = {"program": program, "model": "resnet18", "method": None}
  row = tpu.measure("v5e:2x2", case | {"chips": 1, "batch_size": 8})
  assert row["cycles"] > 0 and row["memory_mib"]["argument"] > 0


@pytest.mark.parametrize("devices", [1, 4])
def test_dispatches_take_devices(devices):
  chosen = jax.local_devices()[:devices]
  mapped = parallel.example_dispatch(lambda shared, index, row: row, chosen)
  _, found = mapped(0, np.zeros((devices, 1)), np.ones((devices, 2)))
  assert found.shape == (2 * devices,)
