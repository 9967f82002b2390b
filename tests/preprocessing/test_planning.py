import pytest

from preprocessing.pairing import Pair
from preprocessing.planning import plan_shards, read_plan, write_plan


def make_pair(slice_id):
    name = f"{slice_id}.bmp"
    return Pair(slice_id=slice_id, image_path=name, mask_path=name, num_bytes=1)


def plan(slice_splits, *, num_shards=None, record_bytes=1, seed=0, patients=None):
    return plan_shards(
        [make_pair(slice_id) for slice_id in slice_splits],
        splits=slice_splits,
        patients=patients or {},
        seed=seed,
        num_shards=num_shards,
        record_bytes=lambda: record_bytes,
    )


SPLITS_OF_TEN = {f"t{index}": "train" for index in range(8)} | {
    f"v{index}": "validation" for index in range(2)
}


def test_few_slices_make_one_shard_for_each_split():
    plans = plan(SPLITS_OF_TEN)
    assert [(each.split, each.filename, len(each.pairs)) for each in plans] == [
        ("train", "train-00000-of-00001.tfrecord", 8),
        ("validation", "validation-00000-of-00001.tfrecord", 2),
    ]


def test_number_of_shards_can_be_given_and_validation_gets_its_share():
    plans = plan(SPLITS_OF_TEN, num_shards=3)
    assert [(each.filename, len(each.pairs)) for each in plans] == [
        ("train-00000-of-00003.tfrecord", 2),
        ("train-00001-of-00003.tfrecord", 3),
        ("train-00002-of-00003.tfrecord", 3),
        ("validation-00000-of-00001.tfrecord", 2),
    ]
    planned = sorted(pair.slice_id for each in plans for pair in each.pairs)
    assert planned == sorted(SPLITS_OF_TEN)


def test_there_are_never_more_shards_than_slices():
    assert [len(each.pairs) for each in plan(SPLITS_OF_TEN, num_shards=99)] == [1] * 10


@pytest.mark.parametrize(
    ("total_mib", "num_shards"), [(1, 1), (40, 2), (1024, 64), (16 * 1024, 64), (32 * 1024, 128)]
)
def test_number_of_shards_follows_from_the_sizes(total_mib, num_shards):
    splits = {f"t{index}": "train" for index in range(256)} | {"v": "validation"}
    plans = plan(splits, record_bytes=total_mib * 2**20 / 256)
    assert sum(each.split == "train" for each in plans) == num_shards


def test_another_seed_gives_another_order():
    assert plan(SPLITS_OF_TEN, seed=1) == plan(SPLITS_OF_TEN, seed=1)
    assert plan(SPLITS_OF_TEN, seed=1) != plan(SPLITS_OF_TEN, seed=2)


def test_plan_comes_back_equal_from_its_file(tmp_path):
    for each in plan({"a/ж_z1": "train", "b": "validation"}, patients={"a/ж_z1": "ж"}):
        write_plan(each, folder=tmp_path)
        assert read_plan(each.filename, folder=tmp_path) == each


def test_size_of_a_record_is_not_looked_for_where_the_number_of_shards_is_given():
    plans = plan_shards(
        [make_pair("a")],
        splits={"a": "train"},
        patients={},
        seed=0,
        num_shards=1,
        record_bytes=lambda: pytest.fail("asked"),
    )
    assert [len(each.pairs) for each in plans] == [1]
