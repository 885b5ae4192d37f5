"""Runs made so that each sentence agrees, disagrees, is open or unmeasured."""

import itertools
import json

import numpy as np
import pytest

from ram_jax.data.cifar_c import NAMES
from ram_jax.report import claims, paired, unpaired
from ram_jax.runs import results as runs

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
OURS = {"clean": 330, "attacked": 202, "corrupted": 300}
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
  """Images right by row of correct.npz: what the paper claims."""
  ours = method == "robust_augmix"
  clean = OURS["clean"] if ours else CLEAN[method]
  attacked = OURS["attacked"] if ours else ATTACKED[method]
  corrupted = OURS["corrupted"] if ours else CORRUPTED[method]
  found = {"clean": clean, "adversarial/0.0": clean}
  found |= {f"adversarial/{e}": attacked for e in EPSILONS[1:]}
  for name, s in itertools.product(NAMES, range(1, 6)):
    # Standard training falls with severity, so that the gain grows.
    fall = 8 * s if method == "standard" else 0
    found[f"corruption/{name}/{s}"] = corrupted - fall
    if name == "fog" and not ours:
      found[f"corruption/{name}/{s}"] = FOG[method]
  return found


def waves(low, middle, high):
  axis = np.arange(12) - 6
  radius = np.hypot(*np.meshgrid(axis, axis))
  wrong = np.where(radius <= 2, low, np.where(radius <= 4, middle, high))
  return {"norm": 4.0, "total": N, "wrong": wrong.tolist()}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
  def make(method, right=None, seed=0, bits=True, **changed):
    right = counts(method) if right is None else right
    rows = {"adversarial": [], "corruption": []}
    for key, correct in right.items():
      part, *where = key.split("/")
      names = {"adversarial": ["epsilon"], "corruption": ["corruption"]}
      names = names.get(part, []) + ["severity"]
      values = [float(x) if x[0].isdigit() else x for x in where]
      if part == "corruption":
        values[1] = int(where[1])
      if where:
        row = dict(zip(names, values, strict=False))
        rows[part].append(row | {"correct": correct, "total": N})
    about = {"name": f"{method}-{seed}", "method": method, "seed": seed}
    about |= {"label": LABELS[method], "model": "WRN", "data_label": "D"}
    results = {
      "schema": 1,
      "run": about | {"step": 7},
      "config": {"name": method, "lr": 0.1, "method": {"name": method}},
      "device": {"platform": "cpu", "kind": "cpu", "count": 1},
      "data": {"test": {"size": N, "fingerprint": "sha256:1"}},
      "clean": {"correct": right["clean"], "total": N},
      "adversarial": {
        "attack": {"name": "PGD-10", "norm": "l2"},
        "by_epsilon": rows["adversarial"],
      },
      "corruption": {"label": "C", "by_corruption": rows["corruption"]},
      "fourier": waves(*WAVES[method]),
      "timing": {"train_seconds": SECONDS[method]},
    } | changed
    results = {key: part for key, part in results.items() if part is not None}
    folder = tmp_path_factory.mktemp(method)
    (folder / "results.json").write_text(json.dumps(results))
    if bits:
      packed = {key: np.packbits(np.arange(N) < n) for key, n in right.items()}
      np.savez(folder / paired.NAME, **packed)
    return runs.load(folder)

  return make


@pytest.fixture(scope="module")
def four(make):
  """Runs that do what the paper says, one method's replaced at will."""
  paper = {method: make(method) for method in LABELS}
  return lambda **replaced: list((paper | replaced).values())


def verdicts(shown):
  tree = claims.answer(shown).tree()
  return {row["name"]: row["verdict"] for row in tree["rows"]}


def row(shown, name):
  rows = claims.answer(shown).tree()["rows"]
  return next(row for row in rows if row["name"] == name)


def test_runs_that_do_what_the_paper_says_agree(four):
  found = verdicts(four())
  # Adversarial training is beaten on all 19, standard training on 18.
  assert len(found) == 12 and set(found.values()) == {"agrees"}


def test_numbers_are_those_of_the_bits(four):
  shown = four()
  first = row(shown, "more_than_standard")
  assert first["measured"] == (
    "better on 18 of 19, 18 of them significantly; not on: fog -17.5*"
  )
  fog = next(c for c in first["comparisons"] if c["measure"] == "fog")
  assert fog["difference"]["value"] == pytest.approx((300 - 370) / N)
  # Image by image 70 against none, as McNemar's: 2 / 2^70.
  assert fog["difference"]["p"] == paired.P_FLOOR
  assert fog["difference"]["images"] == N
  gains = row(shown, "severities")["measured"]
  # 60 + 8 s images on 18 corruptions, -70 on fog; s is 4.5 less 2 on average.
  expected = [100 * (18 * (60 + 8 * s) - 70) / 19 / N for s in range(1, 6)]
  assert ", ".join(f"{gain:+.1f}" for gain in expected) in gains
  assert f"4-5 less 1-3: {100 * 18 * 8 * 2.5 / 19 / N:+.1f} [" in gains
  clean = row(shown, "clean_cost")["measured"]
  assert clean.startswith("clean: standard training -12.5 [-15.7, -9.2], p <")
  assert "3.30 x AugMix's" in row(shown, "training_time")["measured"]
  low = row(shown, "augmix_frequencies")["measured"]
  assert "AugMix less that of standard training: low -15.0 [" in low


def test_tests_of_a_sentence_are_adjusted_together(make, four):
  right = counts("standard")
  for name, s in itertools.product(("snow", "frost"), range(1, 6)):
    right[f"corruption/{name}/{s}"] = 300 - 6 * (s == 1)
  found = row(four(standard=make("standard", right)), "more_than_standard")
  assert [c["measure"] for c in found["comparisons"]] == list(NAMES)
  for c in found["comparisons"][7:9]:
    # Six images of one severity, all one way: 2 / 2^6, and there are two such.
    assert c["difference"]["p"] == pytest.approx(2**-5)
    assert c["difference"]["value"] == pytest.approx(6 / N / 5)
    assert c["adjusted"] == pytest.approx(2**-4)
  assert "better on 18 of 19, 16 of them" in found["measured"]


def everywhere(number, names=NAMES):
  return {f"corruption/{n}/{s}": number for n in names for s in range(1, 6)}


def attacked(number):
  return {f"adversarial/{e}": number for e in EPSILONS[1:]}


def clean(number):
  return {"clean": number, "adversarial/0.0": number}


RISING = {
  f"corruption/{n}/{s}": 200 + 9 * s for n in NAMES for s in range(1, 6)
}
OPEN, NO = "not decided", "disagrees"


@pytest.mark.parametrize(
  ("name", "method", "rows", "expected"),
  [
    ("more_than_standard", "standard", everywhere(380), NO),
    ("more_than_standard", "standard", everywhere(300), OPEN),
    ("more_than_standard", "standard", everywhere(300, NAMES[:4]), OPEN),
    ("more_than_standard", "standard", everywhere(300, NAMES[:3]), "agrees"),
    ("more_than_adversarial", "adversarial", everywhere(350, ["snow"]), NO),
    ("more_than_adversarial", "adversarial", everywhere(300, ["snow"]), OPEN),
    ("not_always_augmix", "augmix", everywhere(200), NO),
    ("not_always_augmix", "augmix", everywhere(300, ["fog"]), OPEN),
    ("noise_glass_jpeg", "augmix", everywhere(350, ["glass_blur"]), NO),
    ("noise_glass_jpeg", "augmix", everywhere(300, ["glass_blur"]), OPEN),
    ("fog", "robust_augmix", everywhere(395, ["fog"]), NO),
    ("fog", "robust_augmix", everywhere(380, ["fog"]), OPEN),
    ("fog", "robust_augmix", everywhere(370, ["fog"]), "agrees"),
    ("severities", "standard", everywhere(250), OPEN),
    ("severities", "standard", RISING, NO),
    ("similar_under_attack", "adversarial", attacked(212), OPEN),
    ("similar_under_attack", "adversarial", {"adversarial/1.0": 240}, NO),
    ("more_robust", "augmix", attacked(250), NO),
    ("more_robust", "augmix", attacked(202), OPEN),
    ("clean_cost", "augmix", clean(329), OPEN),
    ("clean_cost", "augmix", clean(300), NO),
  ],
)
def test_verdicts(make, four, name, method, rows, expected):
  shown = four(**{method: make(method, counts(method) | rows)})
  assert verdicts(shown)[name] == expected


@pytest.mark.parametrize(
  ("name", "method", "part", "expected"),
  [
    ("augmix_frequencies", "augmix", waves(90, 0, 0), OPEN),
    ("augmix_frequencies", "augmix", waves(150, 0, 0), NO),
    ("adversarial_frequencies", "adversarial", waves(160, 0, 310), OPEN),
    ("adversarial_frequencies", "adversarial", waves(60, 0, 0), NO),
    ("training_time", "robust_augmix", {"train_seconds": 20}, OPEN),
    ("training_time", "robust_augmix", {"train_seconds": 5}, NO),
  ],
)
def test_verdicts_without_pairs(make, four, name, method, part, expected):
  changed = {"timing" if "train_seconds" in part else "fourier": part}
  assert verdicts(four(**{method: make(method, **changed)}))[name] == expected


ELSEWHERE = {"data": {"test": {"fingerprint": "sha256:2"}}}
WEAKER = {"fourier": {"norm": 2.0, "total": 9, "wrong": [[1]]}}
GPU = {"device": {"kind": "gpu", "count": 1}}


@pytest.mark.parametrize(
  ("name", "method", "part", "lacking"),
  [
    (
      "more_than_standard",
      "standard",
      {"corruption": None},
      "'corruption' in the results of standard training",
    ),
    ("not_always_augmix", "augmix", {"bits": False}, "correct.npz of AugMix"),
    ("fog", "robust_augmix", {"bits": False}, "correct.npz of RobustAugMix"),
    (
      "similar_under_attack",
      "adversarial",
      ELSEWHERE,
      "correct.npz of adversarial training, on the same test images",
    ),
    ("adversarial_frequencies", "adversarial", ELSEWHERE, "same test images"),
    ("augmix_frequencies", "augmix", {"fourier": None}, "'fourier' in the"),
    ("augmix_frequencies", "standard", WEAKER, "one 'norm' of 'fourier'"),
    ("training_time", "robust_augmix", {"timing": None}, "of RobustAugMix"),
    ("training_time", "robust_augmix", GPU, "device and updates as those"),
  ],
)
def test_what_is_missing_is_named(make, four, name, method, part, lacking):
  shown = four(**{method: make(method, **part)})
  found = row(shown, name)
  assert found["verdict"] == "not measured" and lacking in found["lacking"]
  # What does not need it is answered.
  assert "agrees" in verdicts(shown).values()


def test_attacks_must_be_alike(make, four):
  attack = {"attack": {"name": "PGD-20", "norm": "l2"}}
  rows = [{"epsilon": e, "correct": 1, "total": N} for e in EPSILONS]
  right = counts("adversarial") | {f"adversarial/{e}": 1 for e in EPSILONS}
  other = make("adversarial", right, adversarial=attack | {"by_epsilon": rows})
  found = row(four(adversarial=other), "similar_under_attack")
  assert found["verdict"] == "not measured"
  assert "one 'attack' of 'adversarial'" in found["lacking"]


def test_a_part_of_the_corruptions_can_refuse_but_not_confirm_all(make):
  shown = [
    make(m, {k: n for k, n in counts(m).items() if "frost" not in k})
    for m in LABELS
  ]
  found = row(shown, "more_than_adversarial")
  assert found["verdict"] == "not decided" and found["lacking"] == "frost"
  assert verdicts(shown)["more_than_standard"] == "agrees"


def test_fewer_methods_answer_what_they_can(make):
  found = verdicts([make("robust_augmix"), make("standard")])
  assert found["more_than_standard"] == found["fog"] == "agrees"
  assert found["more_than_adversarial"] == "not measured"
  assert found["noise_glass_jpeg"] == found["clean_cost"] == "not decided"
  only = verdicts([make("augmix"), make("standard")])
  assert only.pop("augmix_frequencies") == "agrees"
  assert set(only.values()) == {"not measured"}
  lone = [make("augmix"), make("augmix", seed=1)]
  assert claims.answer(lone) is claims.table(lone) is None


def test_nothing_is_written_of_one_method(make, tmp_path):
  assert claims.write([make("augmix")], tmp_path / "new") == []
  assert not (tmp_path / "new").exists()


def test_of_several_runs_the_most_alike_is_taken(make):
  shown = [make("standard"), make("robust_augmix", seed=1)]
  shown += [make("standard", seed=1), make("augmix")]
  found = claims.answer(shown)
  names = {m: r["name"] for m, r in found.tree()["runs"].items()}
  assert names["standard"] == "standard-1" and names["augmix"] == "augmix-0"
  notes = found.table().footnotes
  assert "standard training: standard-1, one of 2 runs given" in notes
  assert any("in more than the method: seed" in note for note in notes)


def test_other_differences_are_noted(make, four):
  config = {"name": "x", "lr": 0.2, "method": {"name": "augmix", "weight": 3}}
  config |= {"dataset": {"folder": "elsewhere"}}
  notes = claims.table(four(augmix=make("augmix", config=config))).footnotes
  said = [note for note in notes if "differ in more" in note]
  assert said == ["AugMix and RobustAugMix differ in more than the method: lr"]


def test_damaged_bits_are_refused(make, four):
  run = make("augmix")
  (run.folder / paired.NAME).write_bytes(b"PK")
  with pytest.raises(ValueError, match="is damaged"):
    claims.table(four(augmix=run))


def test_files_and_table(four, tmp_path):
  shown = four()
  table = claims.table(shown)
  paths = claims.write(shown, tmp_path / "deep" / "er")
  assert [path.name for path in paths] == ["claims.md", "claims.json"]
  assert len(list(paths[0].parent.iterdir())) == 2
  assert table.markdown() in paths[0].read_text(encoding="utf-8")
  tree = json.loads(paths[1].read_text(encoding="utf-8"))
  assert tree == json.loads(json.dumps(claims.answer(shown).tree()))
  assert tree["schema"] == 1 and len(tree["rows"]) == len(table.rows)
  text = table.text(100)
  assert max(map(len, text.splitlines())) <= 100
  assert "better on 19 of 19" in text


def test_quotes_are_the_papers(shared_data):
  paper = (shared_data.parent / "paper.md").read_text(encoding="utf-8")
  paper = " ".join(paper.split())
  for sentence in claims.SENTENCES:
    for part in sentence.quote.split(" [...], "):
      assert part in paper, sentence.name


def test_bands_are_those_of_a_small_map():
  # Offsets -2 to 1 of a 4 x 4 map, and half a side is 2: at most 2/3 away is
  # the middle, at most 4/3 its four neighbours, the other 11 are beyond.
  wrong = np.full((4, 4), 9)
  wrong[2, 2] = 1
  wrong[1, 2] = wrong[3, 2] = wrong[2, 1] = wrong[2, 3] = 4
  found = unpaired.band_errors(wrong, 10)
  assert found == pytest.approx({"low": 0.1, "middle": 0.4, "high": 0.9})
