from pathlib import Path

from preprocessing.finding import printable
from preprocessing.inspection.findings import judge
from preprocessing.inspection.scan import measure_slices
from preprocessing.inspection.tables import describe_dataset, describe_findings, table
from preprocessing.manifest import RefusedFile


def test_columns_are_lined_up_and_numbers_end_together():
    assert table(("name", "n"), [("a", "1"), ("longer", "200")], right=(1,)) == [
        "name      n",
        "a         1",
        "longer  200",
    ]


def test_table_without_rows_is_its_header():
    assert table(("name", "n"), []) == ["name  n"]


def test_what_a_terminal_could_misread_is_spelled_out():
    assert printable("Jörg z1") == "Jörg z1"
    assert printable("a\x1b[2J\n\u202eb\udcff") == "a\\x1b[2J\\n\\u202eb\\udcff"


def test_dataset_is_described(tiny, refused_file):
    dataset = tiny.write(refused=(refused_file,))
    lines = describe_dataset(Path("d"), dataset)
    assert lines[0] == "d: 4 slices, patients: 2, shards: 2, 0.0 MiB, split by patient"
    assert lines[2:9] == [
        "split       slices   share  patients  shards  MiB",
        "train            3  75.0 %         1       1  0.0",
        "validation       1  25.0 %         1       1  0.0",
        "",
        "patient  split       slices",
        "P        train            3",
        "Q        validation       1",
    ]
    assert lines[10:13] == [
        "shard                               slices  MiB",
        "train-00000-of-00001.tfrecord            3  0.0",
        "validation-00000-of-00001.tfrecord       1  0.0",
    ]
    assert lines[14:17] == [
        "train: 12.5 % of the pixels are lung; gray values: mean 180.0, standard deviation 50.0",
        "options: seed 0",
        "versions: numpy 2.1",
    ]
    assert lines[18:] == [
        "refused files: 1",
        "  images/<b>bad\\x1b.bmp is <i>empty</i>",
        "skipped files, no images: none",
    ]


def test_split_by_slice_is_warned_of(tiny):
    tiny.slices = {"train": [], "validation": []}
    tiny.add("a", patient_id="")
    lines = describe_dataset(Path("d"), tiny.write(split_by="slice"))
    assert lines[0].startswith("d: 1 slices, patients: unknown, ")
    assert lines[1].startswith("WARNING: split by slice, not by patient: ")
    assert not any(line.startswith("patient ") for line in lines)


def test_long_lists_are_cut_and_counted(tiny):
    for number in range(60):
        tiny.add(f"R{number}_z0", patient_id=f"R{number}")
    refused = tuple(RefusedFile(file=f"images/{n}.bmp", reason="bad") for n in range(23))
    lines = describe_dataset(Path("d"), tiny.write(refused=refused))
    assert "  and 22 more in dataset.json" in lines  # 62 patients
    assert lines[-3:-1] == ["  images/19.bmp bad", "  and 3 more in dataset.json"]


def test_findings_are_counted_and_the_worst_named(tiny):
    tiny.add("P_z3", shift=6)
    tiny.add("P_z4", lung_columns=0)
    dataset = tiny.write()
    judged = judge(measure_slices(tiny.folder, dataset), gray_value_mean=180.0)
    assert describe_findings(judged) == [
        "",
        "finding        slices",
        "off the edges       1",
        "empty               1",
        "",
        "slices to look at: 1 of 6",
        "slice  split  findings",
        "P_z3   train  off the edges",
    ]


def test_dataset_without_findings_says_so(tiny):
    judged = judge(measure_slices(tiny.folder, tiny.write()), gray_value_mean=180.0)
    assert describe_findings(judged)[-1] == "slices to look at: 0 of 4"


def test_many_odd_slices_are_cut_and_counted(tiny):
    for number in range(12):
        tiny.add(f"R_z{number}", patient_id="R", shift=6)
    judged = judge(measure_slices(tiny.folder, tiny.write()), gray_value_mean=180.0)
    assert describe_findings(judged)[-1] == "  and 2 more slices on the page"
