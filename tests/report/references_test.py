"""References of every kind, whole and damaged."""

import json
import re

import pytest

from ram_jax.data import cifar_c
from ram_jax.report import references

PUBLISHED = sorted(references.published())
# RobustBench's corruptions_acc and the README of PRIME, in percent.
MEANS = {
  "augmix_resnet_18": 88.6,
  "augmix_resnext_29": 89.09,
  "augmix_wrn_40_2": 88.82,
  "augmix_wrn_40_2_cifar100": 64.11,
  "gowal_l2_extra_wrn_70_16": 87.68,
  "gowal_l2_wrn_70_16": 84.90,
  "kireev_l2_eps01_resnet_18": 83.40,
  "noisymix_wrn_28_4": 92.78,
  "prime_resnet_18": 89.05,
  "rebuffi_l2_extra_wrn_70_16": 88.23,
  "rlat_augmix_resnet_18": 89.60,
  "rlat_resnet_18": 84.10,
  "standard_wrn_28_10": 73.46,
}
METRICS = {
  "checkpoint": "results/model.pt",
  "clean_accuracy": 0.9123,
  "pgd_adversarial_accuracy": 0.5,
  "pgd_adversarial_accuracy_by_epsilon": {"0.25": 0.8, "1.0": 0.5},
  "cifar10c_mean_accuracy": 0.65,
}
CORRUPTIONS = "corruption,severity,accuracy\nfog,1,0.9\nfog,2,0.4\n"
ROBUSTBENCH = ",fog,fog,snow\n,1,2,1\nA,0.9,0.8,0.7\nB,0.6,0.5,0.9390000001\n"


def by_label(reference):
  return {entry.label: entry.accuracy for entry in reference.entries}


@pytest.fixture
def author(tmp_path):
  """What the author's code writes, its CSV with the line ends of Python's."""
  folder = tmp_path / "robustaugmix"
  folder.mkdir()
  (folder / "eval_metrics.json").write_text(json.dumps(METRICS, indent=2))
  text = "epsilon,accuracy\r\n0.25,0.8\r\n1.0,0.5\r\n"
  (folder / "pgd_per_epsilon.csv").write_text(text, newline="")
  (folder / "cifar10c_per_corruption.csv").write_text(CORRUPTIONS)
  return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_whole_and_name_their_source(name):
  found = references.read(name)
  assert found.name == name and found.images_assumed
  assert re.search(r"^[\w-]+/[\w-]+: .*(snapshot of 20|commit )", found.source)
  tree = json.loads((references.PUBLISHED / f"{name}.json").read_bytes())
  assert tree["licence"] and tree["description"] in found.notes
  assert {entry.total for entry in found.entries} == {10_000}
  corrupted = [e for e in found.entries if e.measure == "corruption"]
  assert bool(corrupted) == (name in MEANS)
  if corrupted:
    assert len(corrupted) == 75 or corrupted[0].is_mean
    mean = sum(entry.accuracy for entry in corrupted) / len(corrupted)
    # Half a unit of the last digit published.
    assert 100 * mean == pytest.approx(MEANS[name], abs=0.005 + 1e-9)


def test_published_numbers_are_those_of_their_source():
  madry = by_label(references.read("madry_l2_eps1"))
  assert madry["clean"] == 0.8162
  assert madry["L2 eps 1 (PGD-20)"] == 0.5272
  assert madry["L2 eps 2 (PGD-100)"] == 0.1805
  madry = by_label(references.read("madry_l2_eps05"))
  assert madry["L2 eps 0.5 (AutoAttack)"] == 0.6924


# Means over severities from RobustBench's table, in percent.
@pytest.mark.parametrize(
  "name, means",
  [
    ("standard_wrn_28_10", {"gaussian_noise": 47.0, "fog": 88.8, "snow": 81.9}),
    ("augmix_wrn_40_2", {"glass_blur": 82.9, "contrast": 90.3, "frost": 89.4}),
    ("rlat_augmix_resnet_18", {"pixelate": 90.7, "zoom_blur": 92.9}),
    ("gowal_l2_wrn_70_16", {"fog": 71.8, "contrast": 58.8}),
    ("noisymix_wrn_28_4", {"impulse_noise": 96.4, "jpeg_compression": 91.8}),
  ],
)
def test_published_cells_stand_at_their_corruption(name, means):
  found = by_label(references.read(name))
  for corruption, mean in means.items():
    cells = [found[f"{corruption}, severity {s}"] for s in range(1, 6)]
    assert 20 * sum(cells) == pytest.approx(mean, abs=0.051)


def test_the_author_folder_is_one_reference(author):
  found = references.read(str(author))
  assert found.name == "robustaugmix" and found.model is None
  assert by_label(found) == {
    "clean": 0.9123,
    "L2 eps 0.25 (PGD-10)": 0.8,
    "L2 eps 1 (PGD-10)": 0.5,
    "fog, severity 1": 0.9,
    "fog, severity 2": 0.4,
  }
  assert "are assumed" in found.notes[0]
  (author / "cifar10c_per_corruption.csv").unlink()
  mean = references.read(str(author)).entries[-1]
  assert (mean.accuracy, mean.corruptions) == (0.65, cifar_c.NAMES)


@pytest.mark.parametrize("name", references.AUTHOR_FILES)
def test_files_are_known_by_content_alone(author, name):
  whole = references.read(str(author / name))
  other = (author / name).rename(author / "some.txt")
  assert references.read(str(other)).entries == whole.entries
  other.write_bytes(b"\xef\xbb\xbf" + other.read_bytes() + b"\n\n")
  assert references.read(str(other)).entries == whole.entries


@pytest.mark.parametrize(
  "name, text, words",
  [
    ("pgd_per_epsilon.csv", "epsilon,accuracy\n1.0,0.6\n", "0.6 in one, 0.5"),
    ("cifar10c_per_corruption.csv", CORRUPTIONS + "snow,1,0.9", "mean is 0.65"),
  ],
)
def test_files_of_different_evaluations_are_refused(author, name, text, words):
  (author / name).write_text(text)
  with pytest.raises(ValueError, match=f"different evaluations.*{words}"):
    references.read(str(author))


def test_robustbench_table_needs_its_model(tmp_path):
  path = tmp_path / "unaggregated:results.csv"
  path.write_text(ROBUSTBENCH)
  found = references.read(f"{path}:B")
  assert found.name == "B" and found.source == f"{path}, row B"
  assert by_label(found) == {
    "fog, severity 1": 0.6,
    "fog, severity 2": 0.5,
    "snow, severity 1": 0.9390000001,
  }
  for model, has in (("", "many models"), (":C", "0 rows of C")):
    words = f"it has {has}: write .*results.csv:MODEL.*one of A, B$"
    with pytest.raises(ValueError, match=words):
      references.read(f"{path}{model}")


@pytest.mark.parametrize(
  "fields, labels, data",
  [
    ({"corruptions_acc": "88.82"}, ["clean", "corruption mean"], "CIFAR-10"),
    (
      {"autoattack_acc": "69.24", "eps": "0.5"},
      ["clean", "L2 eps 0.5 (AutoAttack)"],
      "CIFAR-10",
    ),
    (
      {"autoattack_acc": "69.24", "eps": "8/255", "dataset": "cifar100"},
      ["clean", "Linf eps 0.03137 (AutoAttack)"],
      "CIFAR-100",
    ),
  ],
)
def test_robustbench_models(tmp_path, fields, labels, data):
  tree = {"clean_acc": "95.08", "dataset": "cifar10", "additional_data": True}
  tree |= {"architecture": "WideResNet-40-2", "eps": None} | fields
  path = tmp_path / "model.json"
  path.write_text(json.dumps(tree))
  found = references.read(str(path))
  assert list(by_label(found)) == labels
  assert found.entries[0].accuracy == pytest.approx(0.9508, abs=1e-12)
  assert (found.model, found.data) == ("WideResNet-40-2", data)
  assert found.rounding == 5e-5 and "additional data" in found.notes[0]
  with pytest.raises(ValueError, match="leave out ':A'"):
    references.read(f"{path}:A")


def test_a_run_is_a_reference(make_run, corruption):
  run = make_run("AugMix", corruption=corruption)
  found = references.read(str(run.folder))
  assert references.read(str(run.folder / "results.json")) == found
  assert not found.images_assumed and found.model == "wrn_10_1"
  assert by_label(found)["snow, severity 2"] == 0.4
  assert [(e.label, e.accuracy, e.total) for e in found.entries[:2]] == [
    ("clean", 0.95, 100),
    ("L2 eps 1 (PGD-10)", 0.4, 100),
  ]


@pytest.mark.parametrize(
  "content, words",
  [
    ("", "it is empty"),
    ("\n \n", "it is empty"),
    ("corruption,severity,accuracy\n", "header or numbers are missing"),
    (b"corruption\xff\xfe", "not text in UTF-8"),
    ("corruption,accuracy\nfog,0.5", "has the columns corruption, accuracy;"),
    ("epsilon;accuracy\n1;0.5", "has the columns epsilon;accuracy; what can"),
    (CORRUPTIONS + "snow,1,55.3", "snow, severity 1 is 55.3, .*by 100"),
    (CORRUPTIONS + "snow,1,-0.1", r"-0.1, not in \[0, 1\]$"),
    (CORRUPTIONS + "snow,1,nan", r"nan, not in \[0, 1\]$"),
    (CORRUPTIONS + "snow,1,high", "'high' is no number"),
    (CORRUPTIONS + "rain,1,0.5", "unknown corruption 'rain'.* fog,"),
    (CORRUPTIONS + "snow,6,0.5", "severity 6 of snow is not 1 to 5"),
    (CORRUPTIONS + "snow,1", "row 4 has 2 cells where the first has 3"),
    (CORRUPTIONS + "fog,2,0.4", "fog, severity 2 is given twice"),
    ("epsilon,accuracy\n1,.5\n1.0,.5", "L2 eps 1 .PGD-10. is given twice"),
    ("epsilon,accuracy\n-1,0.5", "epsilon -1.0 is no number of at least 0"),
    (json.dumps(METRICS)[:-20], "not whole JSON"),
    (json.dumps(METRICS | {"clean_accuracy": 91.2}), "of clean is 91.2, .*100"),
    (json.dumps(METRICS | {"clean_accuracy": "a"}), r"'a', not in \[0, 1\]"),
    ('{"clean_acc": "95"}', r"lacks a part.*'dataset'"),
    ('{"accuracy": 1}', "it has accuracy; what can be read is a run"),
    ("[1]", "of a wrong kind|it has"),
  ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, content, words):
  path = tmp_path / "their.file"
  content = content if isinstance(content, bytes) else content.encode()
  path.write_bytes(content)
  with pytest.raises(ValueError, match=words) as caught:
    references.read(str(path))
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_list_what_is_published(tmp_path):
  for name in ("nonsense", f"{tmp_path}:model", f"{tmp_path}/absent.csv:A"):
    with pytest.raises(ValueError, match="no file or folder") as caught:
      references.read(name)
    for published, text in references.published().items():
      assert f"{published}: {text}" in str(caught.value)
  with pytest.raises(FileNotFoundError, match="neither results.json nor any"):
    references.read(str(tmp_path))
