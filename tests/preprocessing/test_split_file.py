import hashlib

import pytest

from preprocessing.config import TfrecordsConfig
from preprocessing.errors import PreprocessingError
from preprocessing.pipeline import run
from preprocessing.split_file import read_split_file


@pytest.fixture
def read(tmp_path):
    def write_and_read(content, *, split_by="patient"):
        path = tmp_path / "split.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_split_file(path, split_by=split_by)

    return write_and_read


def test_table_says_who_is_in_which_split(read):
    content = "patient_id,split\nP1,train\nP2, validation\nP1,train\n\n"
    pinned = read(content)
    assert pinned.splits == {"p1": "train", "p2": "validation"}
    assert pinned.sha256 == hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffsplit,age,patient_id\r\ntrain,61,P1\r\n",
        "\ufeffSplit;Age;Patient_ID\r\ntrain;61;P1\r\n",
        "sep=;\nsplit;patient_id\ntrain;P1\n",
        "split\tpatient_id\ntrain\tP1\n".encode("utf-16"),
    ],
)
def test_table_of_a_spreadsheet_is_read(read, content):
    assert read(content).splits == {"p1": "train"}


def test_line_is_counted_from_the_top_of_the_file(read):
    with pytest.raises(PreprocessingError, match="line 3, puts 'P1' into 'test'"):
        read("sep=;\npatient_id;split\nP1;test\n")


def test_table_of_slices_is_read(read):
    assert read("slice_id,split\na/1,train\n", split_by="slice").splits == {"a/1": "train"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has the columns none; expected patient_id,split .* in its first line"),
        ("patient;split\nP1;train\n", "has the columns patient, split; expected patient_id,spl"),
        ("slice_id,split\na,train\n", r"expected patient_id,split \(with --split-by slice: sli"),
        (b"PK\x03\x04....", "is a workbook of a spreadsheet; expected a table as text; save it as"),
        ("patient_id,split\nP1,test\n", "line 2, puts 'P1' into 'test'; expected a name and train"),
        ("patient_id,split\n,train\n", "line 2, puts '' into 'train'; expected a name"),
        ("patient_id,split\nP1\n", "line 2, puts 'P1' into ''; expected"),
        ("patient_id,split\nP1,train\np1,validation\n", "line 3, puts p1 into validation, and an"),
        ('"patient_id,split\nP1,train\n', "line 1, is no row of a table"),
        ('patient_id,split\n"P1"x,train\n', "line 2, is no row of a table"),
        (b"\xff\xff", "cannot be read .*utf-8.*; expected a table as UTF-8 text"),
        ("{}", "is not a dataset of this project"),
    ],
)
def test_table_that_cannot_be_used_says_why(read, content, message):
    with pytest.raises(PreprocessingError, match=f"--split-file .*split.csv.*{message}"):
        read(content)


def test_missing_table_is_named(tmp_path):
    with pytest.raises(PreprocessingError, match="none.csv cannot be read .*No such file"):
        read_split_file(tmp_path / "none.csv", split_by="patient")


def test_split_of_an_earlier_dataset_can_be_had_again(pairs):
    config = TfrecordsConfig(images=pairs.images, masks=pairs.masks, out=pairs.out, seed=3)
    first = run(config).dataset
    again = run(
        TfrecordsConfig(
            images=pairs.images,
            masks=pairs.masks,
            out=pairs.out.with_name("again"),
            split_file=pairs.out / "dataset.json",
        )
    ).dataset
    assert {name: split.patients for name, split in again.splits.items()} == {
        name: split.patients for name, split in first.splits.items()
    }
    with pytest.raises(PreprocessingError, match="is a dataset; expected one that is split by pat"):
        read_split_file(pairs.out / "dataset.json", split_by="slice")
