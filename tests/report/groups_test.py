"""Runs of one configuration become one group, and nothing else does."""

import dataclasses

import pytest

from ram_jax.contracts import Row
from ram_jax.report import groups as grouping


def frame(*runs):
  return grouping.frame(grouping.groups(runs))


def attack(name="PGD-10", epsilon=1.0, evaluator="adversarial", **settings):
  settings |= {"attack": name, "norm": "l2", "epsilon": epsilon}
  return Row(evaluator, settings, 100, 30)


def test_groups_are_runs_that_differ_in_seed_name_and_paths(make_full_run):
  shown = [make_full_run(x, seed) for seed in (0, 1) for x in ("A", "B")]
  groups = grouping.groups(shown)
  assert [group.label for group in groups] == ["A", "B"]
  assert groups[0].runs == (shown[0], shown[2])


def test_runs_with_other_mixing_sets_are_not_grouped(make_full_run):
  def run(seed, path):
    spec = {"name": "pixmix", "pictures": {"name": "arrays", "path": path}}
    config = {"name": "A", "seed": seed, "augment": spec}
    return make_full_run("A", seed, config=config)

  assert len(grouping.groups([run(0, "fractals"), run(1, "fractals")])) == 1
  assert len(grouping.groups([run(0, "fractals"), run(1, "sketches")])) == 2


@pytest.mark.parametrize(
  "part, value",
  [
    ("config", {"name": "A", "seed": 1, "method": {"name": "A", "weight": 1}}),
    ("data", {"test": {"size": 999, "fingerprint": "sha256:f"}}),
    ("run", {"step": 13}),
    ("config", None),
  ],
)
def test_runs_with_different_configurations_are_not_grouped(
  make_full_run, part, value
):
  one, two = make_full_run("A"), make_full_run("A", 1)
  if part == "run":
    value = two.about | value
  other = make_full_run("A", 1, **{part: value})
  assert [g.label for g in grouping.groups([one, other])] == [
    "A (a-0)",
    "A (a-1)",
  ]


def test_a_seed_counts_once(make_full_run, tmp_path):
  one, two = make_full_run("A"), make_full_run("A", 1)
  copy = dataclasses.replace(two, folder=tmp_path)
  first, second = grouping.groups([one, two, copy])
  assert first.runs == (one, two) and second.runs == (copy,)
  assert (first.label, second.label) == ("A (a, 2 seeds)", "A (a)")


def test_name_of_several_seeds_does_not_contain_one_of_them(make_run):
  runs = []
  for name in ("x", "y"):
    for seed in range(2):
      config = {"name": name, "seed": seed, "size": name}
      run = make_run(f"A{name}", seed, config=config)
      about = run.about | {"label": "A", "name": f"{name}-{seed}"}
      runs.append(make_run(f"A{name}", seed, config=config, run=about))
  assert [g.label for g in grouping.groups(runs)] == ["A (x)", "A (y)"]


def test_labels_become_distinct_by_config_then_run_then_folder(make_run):
  one, two, other = make_run("A"), make_run("A", 1), make_run("B")

  def labels(*shown):
    return tuple(group.label for group in grouping.groups(shown))

  assert labels(one, other) == ("A", "B")
  assert labels(two, other, one) == ("A (a-1)", "B", "A (a-0)")
  same = dict(one.about, name="long")
  named = make_run("A", 2, run=same)
  assert labels(one, named) == ("A (a)", "A (long)")
  copy = make_run("A", 3, run=same)
  assert labels(named, copy) == (f"A ({named.folder})", f"A ({copy.folder})")
  with pytest.raises(ValueError, match="given twice"):
    labels(one, other, one)
  with pytest.raises(ValueError, match="at least one"):
    labels()


def test_estimates_are_over_images_or_over_seeds(make_full_run):
  single, *several = [make_full_run("A", s, shift=10 * s) for s in range(4)]
  found = grouping.estimate(grouping.clean(frame(single)))
  # scipy: binomtest(950, 1000).proportion_ci(method="wilson")
  assert (found.low, found.high) == pytest.approx((0.93469, 0.96187), abs=1e-5)
  # 0.96, 0.97, 0.98: s = 0.01, t(2) = 4.302653, half 0.0248414.
  found = grouping.estimate(grouping.clean(frame(*several)))
  assert (found.value, found.low, found.high, found.seeds) == pytest.approx(
    (0.97, 0.9451586, 0.9948414, 3), abs=1e-7
  )


def test_mean_is_of_accuracies_and_has_no_interval(make_run, corruption):
  rows = frame(make_run("A", found=corruption))
  found = grouping.estimate(rows[rows["evaluator"] == "corruption"])
  assert found.value == pytest.approx(0.625, abs=1e-12) and found.low is None
  assert grouping.estimate(rows[:0]) is None


def test_variants_are_the_settings_without_coordinates(make_run):
  found = [attack("PGD-100"), attack("AutoAttack", evaluator="autoattack")]
  found += [attack(epsilon=e, relative_step_size=0.2) for e in (1.0, 2.0)]
  rows = grouping.attacks(frame(make_run("A", found=found)))
  assert rows.groupby("variant", sort=False).size().to_dict() == {
    "PGD-10 L2 (relative step size 0.4)": 2,
    "PGD-100 L2": 1,
    "AutoAttack L2": 1,
    "PGD-10 L2 (relative step size 0.2)": 2,
  }


def test_attack_checks_are_not_shown_as_accuracies(make_run):
  run = make_run("A", found=[attack(evaluator="attack_check")])
  assert set(grouping.attacks(frame(run))["evaluator"]) == {"adversarial"}


def test_two_notations_of_an_epsilon_are_equal(make_run):
  rows = ((0.0, 95), (8 / 255, 40))
  one, two = make_run("A", rows=rows), make_run("B", rows=((0.031373, 30),))
  assert grouping.attacks(frame(one, two))["epsilon"].nunique() == 2  # 0, 8/255


@pytest.mark.parametrize(
  ("epsilon", "norm", "name"),
  [
    (0.25, "l2", "0.25"),
    (8 / 255, "linf", "8/255"),
    (8 / 255, "l2", "0.03137"),
    (0.3, "linf", "0.3"),
  ],
)
def test_names_of_epsilons(epsilon, norm, name):
  assert grouping.epsilon_name(round(epsilon, 6), norm) == name
