"""References of every kind, intact and damaged."""

import functools
import json
import pathlib
import re

import pytest

from ram_jax import corruptions
from ram_jax.report import compare as compare_lib
from ram_jax.report import references
from tests.main_test import rejects, run

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
MEAN = "mean of 15 corruptions"
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
  rows = reference.rows.to_dict("records")
  return {references.label(row): row["accuracy"] for row in rows}


@pytest.fixture
def author(tmp_path):
  """The output of the author's code; its CSV has Python's line ends."""
  folder = tmp_path / "robustaugmix"
  folder.mkdir()
  (folder / "eval_metrics.json").write_text(json.dumps(METRICS, indent=2))
  text = "epsilon,accuracy\r\n0.25,0.8\r\n1.0,0.5\r\n"
  (folder / "pgd_per_epsilon.csv").write_text(text, newline="")
  (folder / "cifar10c_per_corruption.csv").write_text(CORRUPTIONS)
  return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_complete_and_cite_their_source(name):
  found = references.read(name)
  assert found.name == name and found.images_assumed
  assert re.search(r"^[\w-]+/[\w-]+: .*(snapshot of 20|commit )", found.source)
  tree = json.loads((references.PUBLISHED / f"{name}.json").read_bytes())
  assert tree["license"] and tree["description"] in found.notes
  is_corrupted = found.rows.evaluator == "corruption"
  corrupted, others = found.rows[is_corrupted], found.rows[~is_corrupted]
  assert set(others.total) <= {10_000}
  assert corrupted.empty == (name not in MEANS)
  if name in MEANS:
    assert len(corrupted) == 75 or set(corrupted.corruption) == {MEAN}
    # Half a unit of the last digit published.
    mean = 100 * corrupted.accuracy.mean()
    assert mean == pytest.approx(MEANS[name], abs=0.005 + 1e-9)
    # In these two rows, all accuracies are multiples of 1/1000.
    fewer = name in ("gowal_l2_extra_wrn_70_16", "gowal_l2_wrn_70_16")
    assert set(corrupted.total) == {1_000 if fewer else 10_000}
    assert fewer == any("1000 test images" in note for note in found.notes)


def test_published_numbers_equal_their_source():
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
def test_published_accuracies_belong_to_their_corruption(name, means):
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
  mean = references.read(str(author)).rows.iloc[-1]
  assert (mean.accuracy, mean.corruption) == (0.65, "mean of 19 corruptions")
  assert references.MEANS[mean.corruption] == tuple(corruptions.CORRUPTIONS)


@pytest.mark.parametrize("name", references.AUTHOR_FILES)
def test_formats_are_detected_by_content(author, name):
  whole = references.read(str(author / name))
  other = (author / name).rename(author / "some.txt")
  assert references.read(str(other)).rows.equals(whole.rows)
  other.write_bytes(b"\xef\xbb\xbf" + other.read_bytes() + b"\n\n")
  assert references.read(str(other)).rows.equals(whole.rows)


@pytest.mark.parametrize(
  "name, text, words",
  [
    ("pgd_per_epsilon.csv", "epsilon,accuracy\n1.0,0.6\n", "0.6 in one, 0.5"),
    (
      "cifar10c_per_corruption.csv",
      CORRUPTIONS + "snow,1,0.9",
      "corruptions is 0.65",
    ),
  ],
)
def test_files_of_different_evaluations_are_rejected(author, name, text, words):
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
  for model, has in (("", "one row per model"), (":C", "0 rows of C")):
    words = f"it has {has}: write .*results.csv:MODEL.*one of A, B$"
    with pytest.raises(ValueError, match=words):
      references.read(f"{path}{model}")


@pytest.mark.parametrize(
  "fields, labels, data",
  [
    ({"corruptions_acc": "88.82"}, ["clean", MEAN], "CIFAR-10"),
    (
      {"autoattack_acc": "69.24", "eps": "0.5"},
      ["clean", "L2 eps 0.5 (AutoAttack)"],
      "CIFAR-10",
    ),
    (
      {"autoattack_acc": "69.24", "eps": "128/255", "dataset": "cifar100"},
      ["clean", "L2 eps 0.502 (AutoAttack)"],
      "CIFAR-100",
    ),
  ],
)
def test_robustbench_models(tmp_path, fields, labels, data):
  tree = {"clean_acc": "95.08", "dataset": "cifar10", "additional_data": True}
  tree |= {"architecture": "WideResNet-40-2", "eps": None} | fields
  path = tmp_path / "L2" / "model.json"
  path.parent.mkdir()
  path.write_text(json.dumps(tree))
  found = references.read(str(path))
  assert list(by_label(found)) == labels
  assert found.rows.accuracy[0] == pytest.approx(0.9508, abs=1e-12)
  assert (found.model, found.data) == ("WideResNet-40-2", data)
  assert found.rounding == 5e-5 and "additional data" in found.notes[0]
  with pytest.raises(ValueError, match="omit ':A'"):
    references.read(f"{path}:A")


MODEL = {
  "clean_acc": "95.08",
  "autoattack_acc": "69.24",
  "eps": "0.5",
  "dataset": "cifar10",
  "additional_data": False,
  "architecture": "ResNet-18",
}


@pytest.fixture
def compare(make_run, tmp_path):
  """Compares a run with a file; returns comparison-NAME.json, the output."""
  run_folder = make_run("A", rows=((0.0, 95), (0.031, 40), (0.5, 30))).folder

  def call(name, content, model="", error=None):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    command = ("--mode=compare", f"--workdir={run_folder}")
    command += (f"--reference={path}{model}",)
    if error:
      return rejects(error, *command)
    code, out, err = run(*command)
    assert code == 0, err
    written = out.split()[-1]
    return json.loads(pathlib.Path(written).read_bytes()), " ".join(out.split())

  return call


@pytest.mark.parametrize(
  "folder, dataset, data, images",
  [
    ("x", "cifar10", "CIFAR-10", 10_000),
    ("x", "CIFAR-100", "CIFAR-100", 10_000),
    ("x", "imagenet", "ImageNet", None),
    ("x", "svhn", "svhn", None),
    ("cifar100/L2", None, "CIFAR-100", 10_000),
    ("imagenet", None, "ImageNet", None),
    ("x", None, None, None),
    ("cifar100/L2", "cifar10", "CIFAR-100", 10_000),
    ("imagenet/L2", "cifar10", "CIFAR-10", 10_000),
  ],
)
def test_data_set_is_that_of_file_or_folder_or_unknown(
  compare, folder, dataset, data, images
):
  tree = MODEL | {"dataset": dataset}
  del tree["autoattack_acc"]
  found, text = compare(f"{folder}/model.json", tree)
  assert found["reference"]["data"] == data
  (row,) = found["rows"]
  assert row["reference"].get("total") == images
  assert (row["low"] is None) == (row["high"] is None) == (images is None)
  assert f"ResNet-18, {data or 'unknown data'};" in text
  assert (
    "an unknown number in the reference, so there are no i" in text
  ) != images
  assert ("the data set of the reference is unknown" in text) == (data is None)
  if dataset == "cifar10" and folder != "x":
    other = "ImageNet" if data == "CIFAR-10" else "CIFAR-100"
    assert (
      f"the file says CIFAR-10, but its folder says {other}: {data} is assumed"
      in text
    )


@pytest.mark.parametrize(
  "folder, data, images",
  [
    ("cifar10/corruptions", "CIFAR-10", 10_000),
    ("cifar100", "CIFAR-100", 10_000),
    ("imagenet", "ImageNet", None),
    ("x", None, None),
  ],
)
def test_data_set_of_the_robustbench_table(
  make_full_run, folder, data, images, tmp_path
):
  path = tmp_path / folder / "unaggregated_results.csv"
  path.parent.mkdir(parents=True)
  path.write_text(ROBUSTBENCH)
  workdir = f"--workdir={make_full_run('A').folder}"
  code, out, err = run("--mode=compare", workdir, f"--reference={path}:B")
  assert code == 0, err
  found = json.loads(pathlib.Path(out.split()[-1]).read_bytes())
  assert found["reference"]["data"] == data
  totals = [row["reference"].get("total") for row in found["rows"]]
  assert totals == [images] * 3  # the mean, fog, snow
  assert (found["rows"][0]["low"] is None) == (images is None)


@pytest.mark.parametrize(
  "folder, epsilon, measure",
  [
    ("cifar10/Linf", "0.031", "Linf eps 0.031 (AutoAttack)"),
    ("Linf", "8/255", "Linf eps 0.03137 (AutoAttack)"),
    ("L2/x", "0.5", "L2 eps 0.5 (AutoAttack)"),
    ("l2", 0.5, "L2 eps 0.5 (AutoAttack)"),
    ("L2", "8", "L2 eps 8 (AutoAttack)"),
  ],
)
def test_norm_is_that_of_the_folder(compare, folder, epsilon, measure):
  found, _ = compare(f"{folder}/model.json", MODEL | {"eps": epsilon})
  names = [row["evaluator"] for row in found["rows"]]
  # The run was attacked in L2, with 0.031 and 0.5.
  assert ("adversarial" in names) == (measure == "L2 eps 0.5 (AutoAttack)")
  assert any(measure in note for note in found["notes"]) != (len(names) == 2)


@pytest.mark.parametrize(
  "folder, fields, words",
  [
    ("x", {"eps": "8/255"}, "put it into a folder named L2 or Linf"),
    ("x", {"eps": "0.5"}, "put it into a folder named L2 or Linf"),
    (
      "Linf",
      {"eps": "8"},
      "eps is '8' in the linf norm of pixels in [0, 1]: g",
    ),
    ("Linf", {"eps": 8}, "eps is 8 in the linf norm of pixels in [0, 1]: give"),
    ("Linf", {"eps": "8/0"}, "eps is '8/0' in the linf norm"),
    ("L2", {"eps": None}, "eps is None in the l2 norm"),
    ("L2", {"eps": True}, "eps is True in the l2 norm"),
    ("L2", {"eps": "1/2/3"}, "eps is '1/2/3' in the l2 norm"),
    ("L2", {"eps": "nan"}, "eps is 'nan' in the l2 norm"),
    ("L2", {"clean_acc": "0.90"}, "clean_acc is '0.90': RobustBench's accurac"),
    ("L2", {"clean_acc": 0.9}, "clean_acc is 0.9: RobustBench's accuracies ar"),
    ("L2", {"clean_acc": "950.8"}, "clean_acc is '950.8': RobustBench's accur"),
    ("L2", {"clean_acc": "nan"}, "are in percent, such as 95.08"),
    ("L2", {"clean_acc": True}, "True is not a number"),
    ("L2", {"autoattack_acc": "-1"}, "autoattack_acc is '-1': RobustBench's"),
    ("L2", {"corruptions_acc": "0.88"}, "corruptions_acc is '0.88': Robust"),
    ("L2", {"additional_data": "no"}, "additional_data is no: give true or f"),
    ("L2", {"architecture": 18}, "18 is not text"),
    ("L2", {"dataset": 10}, "lacks a field or has one of the wrong type"),
  ],
)
def test_invalid_robustbench_files(compare, folder, fields, words):
  compare(f"{folder}/model.json", MODEL | fields, error=words)


@pytest.mark.parametrize(
  "given, extra", [(True, True), ("true", True), (False, False), ("false", 0)]
)
def test_additional_data(compare, given, extra):
  found, _ = compare("L2/model.json", MODEL | {"additional_data": given})
  assert found["reference"]["notes"] == ["trained with additional data"] * extra


def test_notes_of_published_numbers(compare):
  tree = {"description": "mine", "source": "me", "model": None, "data": "D"}
  tree |= {"clean": 0.9, "images": 50, "rounding": 0, "notes": "abc"}
  found, text = compare("mine.json", tree)
  assert found["reference"]["notes"] == ["mine", "abc"]
  assert "(reference) abc" in text and "50 in the reference" in text


def test_existing_path_is_a_path(compare, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "t").write_text(",fog\n,1\nb:c,0.9\n")
  model = references.read("t:b:c")
  assert model.name == "b:c" and model.rows.accuracy[0] == 0.9
  # A colon in the name of a file, and one before a row.
  found, _ = compare("d:e/f:g.json", {"clean_accuracy": 0.25})
  assert found["rows"][0]["reference"]["accuracy"] == 0.25
  name = PUBLISHED[0]
  (tmp_path / name).mkdir()
  command = ("--mode=compare", f"--workdir={tmp_path / 'a-0'}")
  rejects("has neither results.json", *command, f"--reference={name}")


def test_a_run_is_a_reference(make_run, corruption):
  run = make_run("AugMix", found=corruption)
  found = references.read(str(run.folder))
  other = references.read(str(run.folder / "results.json"))
  assert other.source == found.source and other.rows.equals(found.rows)
  assert not found.images_assumed and found.model == "wrn_10_1"
  assert by_label(found)["snow, severity 2"] == 0.4
  with pytest.raises(ValueError, match="only has one model: omit ':B'"):
    references.read(f"{run.folder / 'results.json'}:B")
  # An epsilon of 0 is left out.
  assert list(by_label(found).items())[:2] == [
    ("clean", 0.95),
    ("L2 eps 1 (PGD-10)", 0.4),
  ]
  assert list(found.rows.total) == [100, 100, 10, 10, 10, 100]


@pytest.mark.parametrize(
  "content, words",
  [
    ("", "give a header, and rows with as"),
    ("\n \n", "give a header, and rows with as"),
    ("corruption,severity,accuracy\n", "give a header, and rows with as"),
    (b"corruption\xff\xfe", "is damaged, .*UnicodeDecodeError"),
    ("corruption,accuracy\nfog,0.5", "has the columns corruption, accuracy;"),
    (
      "epsilon;accuracy\n1;0.5",
      "has the columns epsilon;accuracy; supported formats",
    ),
    (CORRUPTIONS + "snow,1,55.3", "snow, severity 1 is 55.3, .*by 100"),
    (CORRUPTIONS + "snow,1,-0.1", r"-0.1, not in \[0, 1\]$"),
    (CORRUPTIONS + "snow,1,nan", r"nan, not in \[0, 1\]$"),
    (CORRUPTIONS + "snow,1,high", "'high' is not a number"),
    (CORRUPTIONS + "rain,1,0.5", "unknown corruption 'rain': .* fog,"),
    (CORRUPTIONS + "snow,6,0.5", "severity 6 of snow is not 1 to 5"),
    (CORRUPTIONS + "snow,1", "give a header, and rows with as"),
    (CORRUPTIONS + "fog,2,0.4", "fog, severity 2 is given twice"),
    ("epsilon,accuracy\n1,.5\n1.0,.5", "L2 eps 1 .PGD-10. is given twice"),
    ("epsilon,accuracy\n-1,0.5", "epsilon -1.0 is not a nonnegative number"),
    (json.dumps(METRICS)[:-20], "is damaged, .*JSONDecodeError"),
    (json.dumps(METRICS | {"clean_accuracy": 91.2}), "of clean is 91.2, .*100"),
    (json.dumps(METRICS | {"clean_accuracy": "a"}), r"'a', not in \[0, 1\]"),
    ('{"clean_acc": "95"}', r"lacks a field.*'additional_data'"),
    ('{"accuracy": 1}', "it has accuracy; supported formats are a run"),
    ("[1]", "of the wrong type|it has"),
  ],
)
def test_bad_files_cause_a_one_line_error(tmp_path, content, words):
  path = tmp_path / "their.file"
  content = content if isinstance(content, bytes) else content.encode()
  path.write_bytes(content)
  with pytest.raises(ValueError, match=words) as caught:
    references.read(str(path))
  assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_list_the_published_ones(tmp_path):
  for name in ("nonsense", f"{tmp_path}/absent.csv:A"):
    with pytest.raises(ValueError, match="no file or folder") as caught:
      references.read(name)
    assert ", ".join(references.published()) in str(caught.value)
  with pytest.raises(FileNotFoundError, match="neither results.json nor any"):
    references.read(str(tmp_path))


DEEP = "[" * 100_000
OWN = {
  "description": "d",
  "source": "s",
  "model": "m",
  "data": "CIFAR-10",
  "images": 10_000,
  "rounding": 0.0,
  "clean": 0.9,
  "adversarial": [{"attack": "A", "norm": "l2", "by_epsilon": [[1, 0.5]]}],
  "notes": [],
}


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (",,,\n,,\n", "give a header, and rows with as"),
    ("a" * 200_000, "field larger than field limit"),
    ("epsilon,accuracy\n" + "a" * 100_000 + ",1", "aaa is not a number"),
    ("a" * 100_000 + "\n1", "supported formats are a run's"),
    (DEEP, "lacks a field or has one of the wrong type (RecursionError"),
    ('{"clean_acc":' + DEEP, "wrong type (RecursionError"),
    ("[" + "1" * 5000 + "]", "cannot use"),
    ({"clean_accuracy": True}, "accuracy of clean is True, not in [0, 1]"),
    (
      {
        "clean_accuracy": 0.9,
        "pgd_adversarial_accuracy_by_epsilon": {"1": False},
      },
      "False is not a number",
    ),
    ({"clean_accuracy": 0.9, "cifar10c_mean_accuracy": []}, "is [], not in"),
    (OWN | {"images": "10000"}, "'10000' is not a number of test images"),
    (OWN | {"images": 0}, "0 is not a number of test images"),
    (OWN | {"images": True}, "True is not a number of test images"),
    (OWN | {"notes": 5}, "wrong type"),
    (OWN | {"notes": ["a", 5]}, "5 is not text"),
    (OWN | {"model": ["m"]}, "['m'] is not text"),
    (OWN | {"data": {}}, "{} is not text"),
    (OWN | {"rounding": "0.1"}, "rounding '0.1' is not in [0, 1]"),
    (OWN | {"clean": True}, "accuracy of clean is True"),
    (
      OWN | {"adversarial": [{"attack": "A", "norm": "L2", "by_epsilon": []}]},
      "norm is 'L2': give l2 or linf",
    ),
    (
      OWN
      | {
        "adversarial": [
          {"attack": "A", "norm": "l2", "by_epsilon": [[True, 0.5]]}
        ]
      },
      "epsilon True is not a nonnegative number",
    ),
  ],
)
def test_bad_files_through_the_command(compare, content, words):
  line = compare("their.file", content, error=words)
  assert len(line) < 1500


def parts(tree, before=()):
  """The paths of all parts of a JSON tree."""
  rows = enumerate(tree) if isinstance(tree, list) else tree.items()
  for key, part in rows:
    yield (*before, key)
    if isinstance(part, dict | list):
      yield from parts(part, (*before, key))


@pytest.mark.parametrize(
  "place", [p for p in parts(OWN) if p != ("notes",)], ids=str
)
def test_user_provided_numbers_are_rejected_or_compared(
  make_run, tmp_path, place
):
  run, path = make_run("A"), tmp_path / "mine.json"
  for other in (None, "x", -1, True, [], {}, [1], {"a": 1}, "gone"):
    tree = json.loads(json.dumps(OWN))
    holder = functools.reduce(lambda part, key: part[key], place[:-1], tree)
    if other == "gone":
      del holder[place[-1]]
    else:
      holder[place[-1]] = other
    path.write_text(json.dumps(tree))
    try:
      found = compare_lib.match(run, references.read_file(path))
      compare_lib.table(found).markdown()
    except ValueError as error:
      assert "\n" not in str(error)
