"""Runs constructed so that each claim agrees, disagrees or is not decided."""

import dataclasses
import io
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ram_jax.contracts import Row
from ram_jax.corruptions import CORRUPTIONS
from ram_jax.evaluation import fourier
from ram_jax.report import claims, pairs, statistics
from ram_jax.runs import results

NAMES = tuple(CORRUPTIONS)
N = 400
LABELS = {
  "robust_augmix": "RobustAugMix",
  "standard": "Standard",
  "adversarial": "Adversarial training",
  "augmix": "AugMix",
}
EPSILONS = (0.0, 0.5, 1.0)
# Images right of 400, in order: who has more has all that the other has.
CLEAN = {"standard": 380, "augmix": 370, "adversarial": 300}
ATTACKED = {"standard": 10, "augmix": 20, "adversarial": 200}
CORRUPTED = {"standard": 240, "augmix": 250, "adversarial": 250}
ROBUST = {"clean": 330, "attacked": 202, "corrupted": 300}
# RobustAugMix loses on fog, against all but adversarial training.
FOG = {"standard": 370, "augmix": 380, "adversarial": 200}
SECONDS = {"standard": 10, "adversarial": 80, "augmix": 30, "robust_augmix": 99}
# Errors of 400 at low, middle and high frequencies.
WAVES = {
  "standard": (100, 200, 300),
  "augmix": (40, 150, 290),
  "adversarial": (160, 120, 90),
  "robust_augmix": (120, 110, 100),
}


def counts(method):
  """Correct images by row, as the paper claims."""
  robust = method == "robust_augmix"
  clean = ROBUST["clean"] if robust else CLEAN[method]
  attacked = ROBUST["attacked"] if robust else ATTACKED[method]
  corrupted = ROBUST["corrupted"] if robust else CORRUPTED[method]
  found = {("clean",): clean, ("adversarial", 0.0): clean}
  found |= {("adversarial", e): attacked for e in EPSILONS[1:]}
  for name, s in itertools.product(NAMES, range(1, 6)):
    # Standard training falls with severity, so that the gain grows.
    fall = 8 * s if method == "standard" else 0
    found["corruption", name, s] = corrupted - fall
    if name == "fog" and not robust:
      found["corruption", name, s] = FOG[method]
  return found


def waves(low, middle, high, size=12, norm=4.0, total=N):
  """Rows of half a plane whose errors depend on the band alone."""
  for y, x in fourier.half_plane(size, size):
    radius = np.hypot(y, x) / (size / 2)
    wrong = low if radius <= 1 / 3 else middle if radius <= 2 / 3 else high
    settings = {"wave_norm": norm, "y": y, "x": x}
    yield Row("fourier", settings, total, total - wrong)


def rows(right, attack="PGD-10", images="C", bits=True):
  for (evaluator, *where), count in right.items():
    settings = {}
    if evaluator == "adversarial":
      settings = {"attack": attack, "norm": "l2", "epsilon": where[0]}
    elif evaluator == "corruption":
      settings = {"corruption": where[0], "severity": where[1]}
      settings["images"] = images
    correct = np.arange(N) < count if bits else None
    yield Row(evaluator, settings, N, count, correct)


@pytest.fixture(scope="module")
def make(tmp_path_factory):
  def make(method, right=None, seed=0, errors=None, shown=None, **changed):
    """A run; `shown` are arguments of `rows`, `changed` parts of its head."""
    about = {"name": f"{method}-{seed}", "method": method, "seed": seed}
    about |= {"label": LABELS[method], "model": "WRN", "data_label": "D"}
    head = {
      "run": about | {"step": 7},
      "config": {"name": method, "lr": 0.1, "method": {"name": method}},
      "device": {"platform": "cpu", "kind": "cpu", "count": 1},
      "data": {"test": {"size": N, "fingerprint": "sha256:1"}},
      "timing": {"train_seconds": SECONDS[method]},
    } | changed
    head = {key: part for key, part in head.items() if part is not None}
    folder = tmp_path_factory.mktemp(method)
    right = counts(method) if right is None else right
    errors = list(waves(*WAVES[method])) if errors is None else list(errors)
    results.write(folder, head, [*rows(right, **(shown or {})), *errors])
    return results.load(folder)

  return make


@pytest.fixture(scope="module")
def four(make):
  """Runs that match the paper's claims; single ones can be replaced."""
  paper = {method: make(method) for method in LABELS}
  return lambda **replaced: list((paper | replaced).values())


def verdicts(shown):
  return [row.verdict for row in claims.evaluate(shown).rows]


def row(shown, words):
  """The result of the claim whose quotation has these words."""
  rows = claims.evaluate(shown).rows
  (found,) = [row for row in rows if words in row.claim.quote]
  return found


def test_runs_that_match_the_paper_agree(four):
  found = verdicts(four())
  # Adversarial training is beaten on all 19, standard training on 18.
  assert len(found) == 12 and set(found) == {"agrees"}


def test_numbers_are_computed_image_by_image(four):
  shown = four()
  first = row(shown, "15 out of 19")
  assert first.found == (
    "better on 18 of 19, significantly on 18; not on: fog -17.5*"
  )
  fog = next(c for c in first.comparisons if c.measure == "fog")
  assert fog.difference.value == pytest.approx((300 - 370) / N)
  # Image by image 70 against none, as McNemar's: 2 / 2^70.
  assert fog.difference.p == statistics.P_FLOOR
  # 60 + 8 s images on 18 corruptions, -70 on fog; s is 4.5 less 2 on average.
  gains = row(shown, "severity").found
  assert f"gain at 1-3: {100 * 18 * 8 * 2.5 / 19 / N:+.1f} [" in gains
  clean = row(shown, "clean accuracy").found
  assert clean.startswith("clean, standard training: -12.5 [-15.7, -9.2], p <")
  # 99 seconds against 30.
  assert "AugMix: +230.0" in row(shown, "cost needed").found
  assert "low: +15.0 [" in row(shown, "against low-frequency").found


def test_p_values_of_a_claim_are_corrected_together(make, four):
  right = counts("standard")
  for name, s in itertools.product(("snow", "frost"), range(1, 6)):
    right["corruption", name, s] = 300 - 6 * (s == 1)
  found = row(four(standard=make("standard", right)), "15 out of 19")
  assert [c.measure for c in found.comparisons] == list(NAMES)
  for c in found.comparisons[7:9]:
    # Six images of one severity, all one way: 2 / 2^6, and there are two such.
    assert c.difference.p == pytest.approx(2**-5)
    assert c.difference.value == pytest.approx(6 / N / 5)
    assert c.adjusted == pytest.approx(2**-4)
  assert "better on 18 of 19, significantly on 16" in found.found


def everywhere(number, names=NAMES):
  return {("corruption", n, s): number for n in names for s in range(1, 6)}


def attacked(number):
  return {("adversarial", e): number for e in EPSILONS[1:]}


def clean(number):
  return {("clean",): number, ("adversarial", 0.0): number}


RISING = {("corruption", n, s): 200 + 9 * s for n in NAMES for s in range(1, 6)}
OPEN, NO = "not decided", "disagrees"


@pytest.mark.parametrize(
  ("words", "method", "rows", "expected"),
  [
    ("15 out of 19", "standard", everywhere(380), NO),
    ("15 out of 19", "standard", everywhere(300), OPEN),
    ("15 out of 19", "standard", everywhere(300, NAMES[:4]), OPEN),
    ("15 out of 19", "standard", everywhere(300, NAMES[:3]), "agrees"),
    ("every corruption", "adversarial", everywhere(350, ["snow"]), NO),
    ("every corruption", "adversarial", everywhere(300, ["snow"]), OPEN),
    ("not always", "augmix", everywhere(200), NO),
    ("not always", "augmix", everywhere(300, ["fog"]), OPEN),
    ("JPEG", "augmix", everywhere(350, ["glass_blur"]), NO),
    ("JPEG", "augmix", everywhere(300, ["glass_blur"]), OPEN),
    ("against Fog", "robust_augmix", everywhere(395, ["fog"]), NO),
    ("against Fog", "robust_augmix", everywhere(380, ["fog"]), OPEN),
    ("against Fog", "robust_augmix", everywhere(370, ["fog"]), "agrees"),
    ("severity", "standard", everywhere(250), OPEN),
    ("severity", "standard", RISING, NO),
    ("very similar", "adversarial", attacked(212), OPEN),
    ("very similar", "adversarial", {("adversarial", 1.0): 240}, NO),
    ("significantly", "augmix", attacked(250), NO),
    ("significantly", "augmix", attacked(202), OPEN),
    ("clean accuracy", "augmix", clean(329), OPEN),
    ("clean accuracy", "augmix", clean(300), NO),
  ],
)
def test_verdicts(make, four, words, method, rows, expected):
  shown = four(**{method: make(method, counts(method) | rows)})
  assert row(shown, words).verdict == expected


@pytest.mark.parametrize(
  ("words", "method", "errors", "expected"),
  [
    ("against low-frequency", "augmix", (90, 0, 0), OPEN),
    ("against low-frequency", "augmix", (150, 0, 0), NO),
    ("high-frequency", "adversarial", (160, 0, 310), OPEN),
    ("high-frequency", "adversarial", (60, 0, 0), NO),
  ],
)
def test_verdicts_of_frequencies(make, four, words, method, errors, expected):
  run = make(method, errors=waves(*errors))
  assert row(four(**{method: run}), words).verdict == expected


@pytest.mark.parametrize(("seconds", "expected"), [(20, OPEN), (5, NO)])
def test_verdicts_of_training_time(make, four, seconds, expected):
  run = make("robust_augmix", timing={"train_seconds": seconds})
  assert row(four(robust_augmix=run), "cost needed").verdict == expected


GPU = {"platform": "gpu", "kind": "H100", "count": 1}


@pytest.mark.parametrize("devices", [[GPU], [{"platform": "cpu"}, GPU]])
def test_training_times_on_other_devices_are_not_compared(make, four, devices):
  # Evaluated on the same device.
  trained = [{"versions": {}, "device": device} for device in devices]
  run = make("robust_augmix", trained_with=trained)
  found = row(four(robust_augmix=run), "cost needed")
  assert found.verdict == "not evaluated"
  assert "the same device and number of updates for" in found.lacking


def test_corruptions_without_all_severities_are_not_evaluated(make):
  def made(method):
    found = counts(method)
    del found["corruption", "snow", 5]
    return make(method, found)

  found = row([made("robust_augmix"), made("standard")], "15 out of 19")
  assert found.lacking == "snow" and len(found.comparisons) == 18


def test_attacks_with_equal_labels_have_their_keys_as_names(make):
  shown = []
  for method, count in (("robust_augmix", 90), ("adversarial", 80)):
    settings = {"attack": "PGD-10", "norm": "l2", "epsilon": 1.0}
    more = [
      Row("adversarial", settings | {"restarts": n}, N, right, bits)
      for n in (1, 10)
      for right in (count - n,)
      for bits in (np.arange(N) < right,)
    ]
    shown.append(make(method, {("clean",): 300}, errors=more))
  names = [c.measure for c in row(shown, "very similar").comparisons]
  assert len(names) == 2 and all("restarts=" in name for name in names), names


def part(method, evaluator):
  return {k: n for k, n in counts(method).items() if k[0] != evaluator}


ELSEWHERE = {"data": {"test": {"fingerprint": "sha256:2"}}}
UNKNOWN = {"data": {"test": {"size": N}}}
NO_BITS = {"shown": {"bits": False}}
SAME = "with the same settings for"


@pytest.mark.parametrize(
  ("words", "method", "changed", "lacking"),
  [
    (
      "15 out of 19",
      "standard",
      {"right": part("standard", "corruption")},
      "'corruption' in the results of standard training",
    ),
    ("not always", "augmix", NO_BITS, "correct.npz of AugMix"),
    ("against Fog", "robust_augmix", NO_BITS, "correct.npz of RobustAugMix"),
    (
      "very similar",
      "adversarial",
      ELSEWHERE,
      "the same test images for RobustAugMix and adversarial training",
    ),
    (
      "very similar",
      "adversarial",
      {"shown": {"attack": "PGD-20"}},
      f"'adversarial' {SAME} RobustAugMix and adversarial training",
    ),
    ("not always", "augmix", {"shown": {"images": "D"}}, SAME),
    ("high-frequency", "adversarial", ELSEWHERE, "same test images"),
    ("high-frequency", "adversarial", UNKNOWN, "same test images"),
    ("against low-frequency", "augmix", {"errors": ()}, "'fourier' in the"),
    (
      "against low-frequency",
      "standard",
      {"errors": waves(1, 1, 1, norm=2.0)},
      f"'fourier' {SAME} AugMix",
    ),
    (
      "against low-frequency",
      "standard",
      {"errors": waves(1, 1, 1, total=9)},
      SAME,
    ),
    ("cost needed", "robust_augmix", {"timing": None}, "of RobustAugMix"),
    (
      "cost needed",
      "robust_augmix",
      {"device": {"kind": "gpu", "count": 1}},
      "the same device and number of updates for",
    ),
  ],
)
def test_missing_data_is_named(make, four, words, method, changed, lacking):
  shown = four(**{method: make(method, **changed)})
  found = row(shown, words)
  assert found.verdict == "not evaluated" and lacking in found.lacking
  # What does not need it is answered.
  assert "agrees" in verdicts(shown)


def test_rows_that_only_one_run_has_are_left_out_and_named(make, four):
  right = counts("adversarial")
  del right["adversarial", 1.0]
  right["adversarial", 2.0] = 7
  del right["corruption", "fog", 5]
  shown = four(adversarial=make("adversarial", right))
  found = row(shown, "very similar")
  assert [c.measure for c in found.comparisons] == ["L2 eps 0.5 (PGD-10)"]
  (note,) = [n for n in claims.evaluate(shown).notes if "omitted" in n]
  assert note.startswith("adversarial training and RobustAugMix: rows")
  assert "2 adversarial" in note and "1 corruption" in note


def test_two_sets_of_corrupted_images_are_not_mixed(make):
  shown = [make(method) for method in ("robust_augmix", "standard")]
  both = []
  for run in shown:
    correct = run.correct
    old = [dataclasses.replace(r, correct=correct.get(r.key)) for r in run.rows]
    other = rows({k: 1 for k in counts("standard") if len(k) == 3}, images="D")
    results.write(run.folder, run.head, [*old, *other])
    both.append(results.load(run.folder))
  found = row(both, "15 out of 19")
  assert found.verdict == "not evaluated"
  assert found.lacking == "one value of 'images', not C, D"


def test_waves_of_two_norms_are_not_mixed(make):
  errors = [*waves(1, 2, 3), *waves(1, 2, 3, norm=2.0)]
  shown = [make(method, errors=errors) for method in ("augmix", "standard")]
  found = row(shown, "against low-frequency")
  assert found.verdict == "not evaluated"
  assert found.lacking == "one value of 'wave_norm', not 2.0, 4.0"


def test_some_corruptions_can_refute_but_not_confirm_a_claim(make):
  shown = [
    make(m, {k: n for k, n in counts(m).items() if "frost" not in k})
    for m in LABELS
  ]
  found = row(shown, "every corruption")
  assert found.verdict == "not decided" and found.lacking == "frost"
  assert row(shown, "15 out of 19").verdict == "agrees"


def test_fewer_methods_decide_fewer_claims(make):
  shown = [make("robust_augmix"), make("standard")]
  for words, expected in (
    ("15 out of 19", "agrees"),
    ("against Fog", "agrees"),
    ("every corruption", "not evaluated"),
    ("JPEG", "not decided"),
    ("clean accuracy", "not decided"),
  ):
    assert row(shown, words).verdict == expected
  only = [make("augmix"), make("standard")]
  assert row(only, "against low-frequency").verdict == "agrees"
  assert verdicts(only).count("not evaluated") == len(claims.CLAIMS) - 1
  lone = [make("augmix"), make("augmix", seed=1)]
  assert claims.evaluate(lone) is None


def test_most_similar_of_several_configurations_is_used(make):
  config = {"name": "x", "lr": 0.2, "method": {"name": "standard"}}
  shown = [make("standard", config=config), make("robust_augmix", seed=1)]
  shown += [make("standard", seed=1), make("augmix")]
  found = claims.evaluate(shown)
  notes = found.table().footnotes
  assert notes[0] == (
    "RobustAugMix is robust_augmix-1; standard training is standard-1 (chosen "
    "from 2 runs); AugMix is augmix-0"
  )
  assert [n for n in notes if "in more than the method: seed" in n] == [
    "AugMix and RobustAugMix differ in more than the method: seed"
  ]


def test_several_seeds_are_tested_over_seeds(make):
  """Differences of runs with the same seed, as by SciPy's paired t-test."""
  right = {
    "standard": {("clean",): [380, 372, 384, 377]},
    "robust_augmix": {("clean",): [330, 335, 331, 342]},
  }
  shown = [
    make(m, {("clean",): n}, seed, errors=())
    for m in right
    for seed, n in enumerate(right[m]["clean",])
  ]
  # A fifth seed of one method is not compared.
  shown += [make("standard", {("clean",): 1}, seed=4, errors=())]
  (found,) = row(shown, "clean accuracy").comparisons
  samples = [np.array(right[m]["clean",]) / N for m in right]
  test = stats.ttest_rel(samples[1], samples[0])
  assert found.difference.value == pytest.approx(
    np.mean(samples[1] - samples[0])
  )
  assert found.difference.p == found.adjusted == pytest.approx(test.pvalue)
  ends = test.confidence_interval(0.95)
  assert (found.difference.low, found.difference.high) == pytest.approx(ends)
  assert found.sign == claims.WORSE and found.difference.seeds == 4
  notes = claims.evaluate(shown).notes
  assert {*claims.SEVERAL_SEEDS} <= {*notes}
  assert not {*claims.ONE_SEED} & {*notes}


def test_several_seeds_need_no_predictions(make):
  shown = [
    make(m, seed=seed, shown={"bits": bits}, errors=())
    for bits in (True, False)
    for m in ("robust_augmix", "standard", "adversarial")
    for seed in range(2)
  ]
  first, second = (claims.evaluate(x) for x in (shown[:6], shown[6:]))
  # The same differences for all seeds give no interval.
  assert [a.found for a in first.rows] == [a.found for a in second.rows]
  assert all("correct.npz" not in a.lacking for a in second.rows)
  assert first.rows[0].found != "-"


def test_equal_accuracies_of_zero_are_similar(make):
  right = {("clean",): 300} | {("adversarial", e): 0 for e in EPSILONS[1:]}
  shown = [
    make(m, right, seed, errors=())
    for m in ("robust_augmix", "adversarial")
    for seed in range(2)
  ]
  assert row(shown, "very similar").verdict == "agrees"


def test_one_shared_seed_is_compared_image_by_image(make):
  shown = [make("standard"), make("standard", seed=1)]
  shown += [make("robust_augmix", seed=1)]
  (found,) = row(shown, "clean accuracy").comparisons
  assert found.difference.seeds == 1
  assert found.difference.p == statistics.P_FLOOR
  notes = claims.evaluate(shown).notes
  assert {*claims.ONE_SEED} <= {*notes}
  assert not {*claims.SEVERAL_SEEDS} & {*notes}


def test_other_differences_are_noted(make, four):
  config = {"name": "x", "lr": 0.2, "method": {"name": "augmix", "weight": 3}}
  config |= {"dataset": {"folder": "elsewhere"}}
  notes = claims.evaluate(four(augmix=make("augmix", config=config))).notes
  said = [note for note in notes if "differ in more" in note]
  assert said == ["AugMix and RobustAugMix differ in more than the method: lr"]


def bits(array):
  file = io.BytesIO()
  np.savez(file, clean=array)
  return file.getvalue()


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "is damaged .*evaluate the run again with --mode=evaluate"),
    (b"PK\x03\x04", "is damaged"),
    (bits(np.arange(N) < 370)[:-30], "is damaged"),
    (bits(np.arange(N) < 371), r"from different evaluations \(clean\)"),
    (bits(np.arange(N + 1) < 370), "from different evaluations"),
    (bits((np.arange(N) < 370).astype(int)), "from different evaluations"),
  ],
)
def test_correct_npz_of_another_evaluation_is_rejected(
  make, four, content, words
):
  run = make("augmix")
  (run.folder / "correct.npz").write_bytes(content)
  with pytest.raises(ValueError, match=words):
    claims.evaluate(four(augmix=run))


def test_table_has_a_row_for_each_claim(four):
  table = claims.evaluate(four()).table()
  assert len(table.rows) == len(claims.CLAIMS)
  text = table.text(100)
  assert max(map(len, text.splitlines())) <= 100
  assert "better on 19 of 19" in text


def test_quotes_are_from_the_paper(shared_data):
  paper = (shared_data.parent / "paper.md").read_text(encoding="utf-8")
  paper = " ".join(paper.split())
  for claim in claims.CLAIMS:
    for part in claim.quote.split(" [...], "):
      assert part in paper, claim.quote


def test_bands_of_a_small_map():
  # Offsets -2 to 1 of a 4 x 4 map, and half a side is 2: at most 2/3 away is
  # the middle, at most 4/3 its four neighbours, the other 11 are beyond. One of
  # them, (-2, -2), is classified correctly.
  found = [
    dataclasses.replace(row, correct_count=10)
    if row.settings["y"] == row.settings["x"] == -2
    else row
    for row in waves(1, 4, 9, size=4, total=10)
  ]
  found = [
    {**row.settings, "accuracy": row.correct_count / row.total} for row in found
  ]
  means = pairs.band_means(pd.DataFrame(found))["accuracy"]
  assert dict(means) == pytest.approx(
    {"low": 0.9, "middle": 0.6, "high": 2 / 11}
  )
