"""Runs of one configuration become one group, and nothing else does."""

import pytest

from ram_jax.report import seeds
from ram_jax.runs import results as runs


def test_groups_are_runs_that_differ_in_seed_name_and_places(make_full_run):
  shown = [make_full_run(x, seed) for seed in (0, 1) for x in ("A", "B")]
  groups = seeds.groups(shown)
  assert [group.label for group in groups] == ["A (2 seeds)", "B (2 seeds)"]
  assert groups[0].runs == (shown[0], shown[2])
  assert seeds.column(groups, shown[3]) == 1
  assert seeds.column(groups, None) is None
  assert seeds.column(groups[:1], shown[3]) is None


@pytest.mark.parametrize(
  "part, value",
  [
    ("config", {"name": "A", "seed": 1, "method": {"name": "A", "weight": 1}}),
    ("data", {"test": {"size": 999, "fingerprint": "sha256:f"}}),
    ("run", {"step": 13}),
    ("config", None),
  ],
)
def test_runs_of_another_configuration_stay_alone(make_full_run, part, value):
  one, two = make_full_run("A"), make_full_run("A", 1)
  if isinstance(value, dict) and part == "run":
    value = two.results["run"] | value
  other = make_full_run("A", 1, **{part: value})
  assert [g.label for g in seeds.groups([one, other])] == [
    "A (seed 0)",
    "A (seed 1)",
  ]


def test_a_seed_counts_once(make_full_run, tmp_path):
  one, two = make_full_run("A"), make_full_run("A", 1)
  copy = runs.Run(tmp_path, two.results, [])
  first, second = seeds.groups([one, two, copy])
  assert first.runs == (one, two) and second.runs == (copy,)
  assert (first.label, second.label) == ("A (2 seeds)", "A (seed 1)")


def test_estimates_are_over_images_or_over_seeds(make_full_run):
  single, *several = [make_full_run("A", s, shift=10 * s) for s in range(4)]
  (group,) = seeds.groups([single])
  found = group.estimate(runs.clean)
  # scipy: binomtest(950, 1000).proportion_ci(method="wilson")
  assert (found.low, found.high) == pytest.approx((0.93469, 0.96187), abs=1e-5)
  assert group.estimate(lambda r: 0.5).low is None
  assert group.estimate(lambda r: None) is None
  (group,) = seeds.groups(several)
  # 0.96, 0.97, 0.98: s = 0.01, t(2) = 4.302653, half 0.0248414.
  found = group.estimate(runs.clean)
  assert (found.value, found.low, found.high, found.seeds) == pytest.approx(
    (0.97, 0.9451586, 0.9948414, 3), abs=1e-7
  )


def test_labels_become_distinct_by_seed_then_name_then_folder(make_run):
  one, two, other = make_run("A"), make_run("A", 1), make_run("B")

  def labels(*shown):
    return tuple(group.label for group in seeds.groups(shown))

  assert labels(one, other) == ("A", "B")
  assert labels(two, other, one) == ("A (seed 1)", "B", "A (seed 0)")
  same = dict(one.results["run"], name="long")
  named = make_run("A", 2, run=same)
  assert labels(one, named) == ("A (a-0)", "A (long)")
  copy = make_run("A", 3, run=same)
  assert labels(named, copy) == (f"A ({named.folder})", f"A ({copy.folder})")
  with pytest.raises(ValueError, match="given twice"):
    labels(one, other, one)
  with pytest.raises(ValueError, match="at least one"):
    labels()
