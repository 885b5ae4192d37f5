"""The rules for values of fields, and their errors."""

import pytest

from ram_jax import checks

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
  ("rule", "good", "bad"),
  [
    (checks.SIZE, [0, 2.5], [-1, NAN, INF, "a", None]),
    (checks.POSITIVE, [1e-9, 3], [0, -1.0, NAN, INF]),
    (checks.FRACTION, [0, 0.5, 1], [-0.1, 1.1, NAN]),
    (checks.BELOW_1, [0, 0.9], [-0.1, 1, NAN]),
    (checks.integer(1), [1, 10**20], [0, 2.0, True, "1", None, NAN]),
    (checks.one_of("a", 9), ["a", 9], ["b", 8, None, ["a"]]),
    (("a pair", lambda v: len(v) == 2), [(1, 2)], [(1,), 3]),
  ],
)
def test_rules(rule, good, bad):
  for value in good:
    checks.check({"x": value}, x=rule)
  for value in bad:
    with pytest.raises(ValueError) as caught:
      checks.check({"x": value}, "config.", x=rule)
    assert str(caught.value) == f"config.x is {value!r}: give {rule[0]}"


def test_words_of_rules():
  assert checks.one_of("a", "b", 3)[0] == "a or b or 3"
  assert checks.integer(2)[0] == "an integer, at least 2"
