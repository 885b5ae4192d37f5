"""The paper's sentences beside what runs say, with paired tests.

Sentences of section 5, and of section 6 where that names costs and the
hypothesis.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ram_jax.report import sentences, unpaired
from ram_jax.report.evidence import (
  ADVERSARIAL,
  LEVEL,
  METHODS,
  STANDARD,
  Evidence,
  Missing,
  gather,
)
from ram_jax.report.sentences import SIMILAR, UNMEASURED, Answer, Sentence
from ram_jax.report.table import Table
from ram_jax.runs.results import Run

SCHEMA = 1
SENTENCES = (
  Sentence(
    "more_than_standard",
    "RobustAugMix improves over standard training in 15 out of 19 of the "
    "common corruptions",
    "better on 15 of 19",
    functools.partial(sentences.wins, baseline=STANDARD, required=15),
  ),
  Sentence(
    "more_than_adversarial",
    "RobustAugMix also outperforms robust (i.e., adversarial) training for "
    "every corruption type",
    "better on 19 of 19",
    functools.partial(sentences.wins, baseline=ADVERSARIAL, required=19),
  ),
  Sentence(
    "not_always_augmix",
    "RobustAugMix does not always outperform vanilla AugMix on CIFAR10-C",
    "AugMix is better on some",
    sentences.not_always,
  ),
  Sentence(
    "noise_glass_jpeg",
    "more robust compared to the baselines when tested against Gaussian noise, "
    "glass blur, and JPEG compression",
    "better than all three baselines on each",
    sentences.named_corruptions,
  ),
  Sentence(
    "fog",
    "it does not perform as well against Fog",
    "worse than standard training or AugMix (not said which)",
    sentences.fog,
  ),
  Sentence(
    "severities",
    "improves over standard training [...], particularly when tested against "
    "corruptions of higher severity levels",
    "larger gain at severities 4 and 5",
    sentences.severities,
  ),
  Sentence(
    "similar_under_attack",
    "RobustAugMix achieves very similar adversarial accuracy to Robust "
    "training",
    f"read as: within {100 * SIMILAR:g} points at every epsilon",
    sentences.similar,
  ),
  Sentence(
    "more_robust",
    "and significantly improves over Standard and AugMix",
    "higher adversarial accuracy than both",
    sentences.more_robust,
  ),
  Sentence(
    "clean_cost",
    "a drop in clean accuracy compared to Standard and AugMix training",
    "lower than both",
    sentences.clean_cost,
  ),
  Sentence(
    "training_time",
    "an increased computational cost needed to train with adversarial "
    "perturbations",
    "longer than both",
    unpaired.training_time,
  ),
  Sentence(
    "adversarial_frequencies",
    "adversarial training enhances robustness to high-frequency corruptions "
    "(e.g., noise) at the cost of reduced robustness to lower-frequency "
    "corruptions (e.g., Fog)",
    "less error at high, more at low frequencies (a hypothesis)",
    unpaired.high_at_the_cost_of_low,
  ),
  Sentence(
    "augmix_frequencies",
    "The AugMix method brings robustness against low-frequency domain "
    "corruptions",
    "less error at low frequencies",
    unpaired.low_by_augmix,
  ),
)
HOW = (
  "differences are RobustAugMix's accuracy less the other's, in points, with "
  "95 % intervals (Agresti and Min 2005)",
  "tests are exact, two-sided, and of one network each: McNemar's, and of "
  "means over corruptions, severities or epsilons sign flips of each image's "
  "sum, as the images are the samples; they do not cover the choice of seed",
  f"significant (*): p < {LEVEL:g} after Holm's correction over all "
  "comparisons of a sentence, as p is shown; not decided: the tests leave both "
  "open",
  "frequencies: mean error under Fourier waves of up to 1/3, up to 2/3 and "
  "above 2/3 of the highest frequency along an axis; intervals as if of "
  "different images, rather too wide",
  "training times are of one training each; results do not tell whether other "
  "work shared the device",
)


@dataclasses.dataclass(frozen=True)
class Claims:
  """Every sentence, answered.

  Attributes:
    evidence: the runs that answer.
    answers: one for each of `SENTENCES`.
  """

  evidence: Evidence
  answers: tuple[Answer, ...]

  def table(self) -> Table:
    """One row per sentence; footnotes say how and with which runs."""
    rows = []
    pairs = zip(SENTENCES, self.answers, strict=True)
    for number, (sentence, answer) in enumerate(pairs, start=1):
      lacking = f" (without {answer.lacking})" if answer.lacking else ""
      quote = f'"{sentence.quote}"'
      verdict = answer.verdict + lacking
      cells = (quote, sentence.says, answer.measured, verdict)
      rows.append((str(number), *cells))
    # The number is the title of a row that fills a narrow terminal.
    header = ("", "the paper", "which says", "these runs", "verdict")
    return Table(header, tuple(rows), (*self._about(), *HOW))

  def tree(self) -> dict[str, Any]:
    """What claims.json holds."""
    runs = {
      method: {key: run.results["run"].get(key) for key in ("name", "seed")}
      for method, run in self.evidence.runs.items()
    }
    rows = [
      {"name": s.name, "sentence": s.quote, "paper": s.says}
      | dataclasses.asdict(answer)
      for s, answer in zip(SENTENCES, self.answers, strict=True)
    ]
    notes = [*self.evidence.notes, *HOW]
    return {"schema": SCHEMA, "runs": runs, "rows": rows, "notes": notes}

  def _about(self) -> list[str]:
    names = [
      f"{METHODS[method]} is {run.results['run']['name']}"
      for method, run in self.evidence.runs.items()
    ]
    return [", ".join(names), *self.evidence.notes]


def answer(shown: Sequence[Run]) -> Claims | None:
  """Answers the paper's sentences from runs.

  Args:
    shown: any runs; those of the paper's four methods are used, one of each.

  Returns:
    The answers; None where fewer than two of the methods are there.

  Raises:
    ValueError: a correct.npz that is damaged or of another evaluation.
  """
  if (
    len({run.results["run"].get("method") for run in shown} & set(METHODS)) < 2
  ):
    return None
  evidence = gather(shown)
  return Claims(evidence, tuple(_answer(s, evidence) for s in SENTENCES))


def table(shown: Sequence[Run]) -> Table | None:
  """The answers as a table.

  Args:
    shown: as `answer` takes them.

  Returns:
    The table; None where fewer than two of the methods are there.

  Raises:
    ValueError: a correct.npz that is damaged or of another evaluation.
  """
  claims = answer(shown)
  return claims and claims.table()


def write(
  shown: Sequence[Run], folder: str | os.PathLike
) -> list[pathlib.Path]:
  """Writes claims.md and claims.json, whole or not at all.

  Args:
    shown: as `answer` takes them.
    folder: where to write; made if absent.

  Returns:
    Paths of the two files; none where fewer than two of the methods are there.

  Raises:
    ValueError: a correct.npz that is damaged or of another evaluation.
  """
  claims = answer(shown)
  if claims is None:
    return []
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  texts = {
    "claims.md": "# The paper's sentences\n\n" + claims.table().markdown(),
    "claims.json": json.dumps(claims.tree(), indent=2, allow_nan=False) + "\n",
  }
  paths = []
  for name, text in texts.items():
    part = folder / f"{name}.part"
    part.write_text(text, encoding="utf-8")
    paths.append(part.replace(folder / name))
  return paths


def _answer(sentence: Sentence, evidence: Evidence) -> Answer:
  try:
    return sentence.ask(evidence)
  except Missing as missing:
    return Answer("-", UNMEASURED, str(missing))
