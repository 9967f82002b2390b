import shutil
from dataclasses import replace

import numpy as np
import pytest

from preprocessing.manifest import DatasetManifest, ManifestError, Split
from preprocessing.phantoms.teaching import draw_teaching_slices
from preprocessing.records import read_patient_id
from preprocessing.spec import SPLITS
from trainer.input_pipeline import SplitReader, read_examples


def reader(config, split: str = "train", *, num_replicas: int = 1, **workers) -> SplitReader:
    manifest = DatasetManifest.load(config.data)
    return SplitReader(config, manifest, split, num_replicas=num_replicas, **workers)


def images_of(batches) -> list[bytes]:
    return [
        image.tobytes()
        for batch in batches.as_numpy_iterator()
        for image, weight in zip(batch["image"], batch["weight"], strict=True)
        if weight
    ]


def test_evaluation_sees_every_slice_exactly_once_in_order(config):
    slices = list(read_examples(config.data, DatasetManifest.load(config.data), "train"))
    images = images_of(reader(config).evaluation_batches())
    assert len(images) == len(set(images)) == len(slices) == 10


def test_training_sees_the_same_slices_in_another_order_each_epoch(config):
    split = reader(config)
    first, second = (images_of(split.training_batches(epoch)) for epoch in (1, 2))
    assert sorted(first) == sorted(second) == sorted(images_of(split.evaluation_batches()))
    assert first != second


def test_epoch_that_is_run_again_sees_the_same_batches(config):
    runs = [list(reader(config).training_batches(3).as_numpy_iterator()) for _ in range(2)]
    for batch, again in zip(*runs, strict=True):
        for key in batch:
            assert np.array_equal(batch[key], again[key])


def test_seed_changes_the_order(config):
    other = replace(config, seed=1)
    assert images_of(reader(config).training_batches(1)) != images_of(
        reader(other).training_batches(1)
    )


def test_last_batch_is_padded_with_weight_zero(config):
    weights = [
        batch["weight"].tolist()
        for batch in reader(config).evaluation_batches().as_numpy_iterator()
    ]
    assert weights == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]


def test_batch_is_padded_to_a_multiple_of_the_replicas(config):
    split = reader(config, num_replicas=3)
    assert split.steps == 3
    weights = [b["weight"].tolist() for b in split.evaluation_batches().as_numpy_iterator()]
    assert weights[0] == [1, 1, 1, 1, 0, 0]


def test_batches_are_uint8_at_the_size_of_the_model(config):
    batch = next(reader(config).training_batches(1).as_numpy_iterator())
    assert batch["image"].shape == batch["mask"].shape == (4, 32, 32, 1)
    assert batch["image"].dtype == batch["mask"].dtype == np.uint8
    assert set(np.unique(batch["mask"])) == {0, 1}
    assert batch["angle"].shape == (4,)
    assert batch["noise_seed"].shape == (4, 2)
    assert batch["weight"].shape == batch["num_slices"].shape == (4,)


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_where_slices_are_kept_changes_nothing_in_what_is_read(config, cache):
    for epoch in (1, 2):
        in_memory, other = (
            list(reader(replace(config, cache=kept)).training_batches(epoch).as_numpy_iterator())
            for kept in ("memory", cache)
        )
        for batch, same in zip(in_memory, other, strict=True):
            for key in batch:
                assert np.array_equal(batch[key], same[key]), key


@pytest.mark.parametrize("first_step", [1, 2, 3])
def test_epoch_can_begin_at_any_step(config, first_step):
    whole = list(reader(config).training_batches(2).as_numpy_iterator())
    rest = reader(config).training_batches(2, first_step=first_step).as_numpy_iterator()
    for batch, same in zip(whole[first_step:], rest, strict=True):
        for key in batch:
            assert np.array_equal(batch[key], same[key]), key


def test_every_place_knows_the_number_of_slices_in_the_global_batch(config):
    batches = reader(config).evaluation_batches().as_numpy_iterator()
    assert [batch["num_slices"].tolist() for batch in batches] == [[4] * 4, [4] * 4, [2] * 4]


def test_workers_read_the_parts_of_the_batches_of_one(config):
    config = replace(config, global_batch_size=3)
    alone = list(reader(config, num_replicas=2).training_batches(1).as_numpy_iterator())
    parts = [
        reader(config, num_replicas=2, num_workers=2, worker_index=index).training_batches(1)
        for index in range(2)
    ]
    for batch, first, second in zip(alone, *(p.as_numpy_iterator() for p in parts), strict=True):
        for key in batch:
            assert len(first[key]) == len(second[key]) == 2
            assert np.array_equal(batch[key], np.concatenate([first[key], second[key]])), key


def test_batch_is_padded_to_a_multiple_of_the_parts(config):
    split = reader(replace(config, accumulation_steps=3), num_replicas=2)
    weights = [b["weight"].tolist() for b in split.evaluation_batches().as_numpy_iterator()]
    assert weights[0] == [1, 1, 1, 1, 0, 0]


def test_missing_shard_is_named(config, tmp_path):
    shutil.copytree(config.data, tmp_path / "copy")
    (tmp_path / "copy" / "train-00000-of-00003.tfrecord").unlink()
    with pytest.raises(ManifestError, match=r"train-00000-of-00003.tfrecord is missing"):
        reader(replace(config, data=tmp_path / "copy"))


def test_shard_of_another_size_is_named(config, tmp_path):
    shutil.copytree(config.data, tmp_path / "copy")
    shard = tmp_path / "copy" / "train-00000-of-00003.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"tfrecord has \d+ bytes; dataset.json says \d+"):
        reader(replace(config, data=tmp_path / "copy"))


def test_empty_split_is_refused(config):
    manifest = DatasetManifest.load(config.data)
    empty = Split(num_examples=0, patients={}, shards=())
    manifest = replace(manifest, splits={**manifest.splits, "validation": empty})
    with pytest.raises(ManifestError, match="the validation split of .* is empty"):
        SplitReader(config, manifest, "validation", num_replicas=1)


def patients_of(config, split: str) -> set[str]:
    manifest = DatasetManifest.load(config.data)
    index = reader(config, split)._index
    assert len(index) == reader(config, split).num_slices
    assert manifest.splits
    return {read_patient_id(index.read(number)) for number in range(len(index))}


def test_patient_that_is_held_out_is_the_validation_split_and_no_part_of_training(config):
    everybody = patients_of(config, "train") | patients_of(config, "validation")
    for patient in sorted(everybody):
        held_out = replace(config, hold_out=patient)
        assert patients_of(held_out, "validation") == {patient}
        assert patients_of(held_out, "train") == everybody - {patient}


def test_all_slices_are_read_where_a_patient_is_held_out(config):
    plain = [images_of(reader(config, split).evaluation_batches()) for split in SPLITS]
    patient = sorted(patients_of(config, "train"))[0]
    config = replace(config, hold_out=patient)
    held_out = [images_of(reader(config, split).evaluation_batches()) for split in SPLITS]
    assert sorted(plain[0] + plain[1]) == sorted(held_out[0] + held_out[1])


def test_patient_that_is_not_there_cannot_be_held_out(config):
    with pytest.raises(ManifestError, match=r"--hold-out is 'nobody', but .* has slices of"):
        reader(replace(config, hold_out="nobody"))


def test_phantoms_are_the_share_of_an_epoch_that_is_asked_for(config):
    split = reader(replace(config, phantom_share=0.6, phantoms=32))
    assert (split.num_real_slices, split.num_phantoms, split.num_slices) == (10, 15, 25)
    real = set(images_of(reader(config).evaluation_batches()))
    images = images_of(split.training_batches(1))
    assert len(images) == 25
    assert sorted(image for image in images if image in real) == sorted(real)
    drawn = draw_teaching_slices(num_slices=32, image_size=32, seed=config.seed)[:, 0]
    phantoms = {image.tobytes() for image in drawn}
    of_epoch = [image for image in images if image not in real]
    assert len(set(of_epoch)) == 15
    assert set(of_epoch) <= phantoms
    assert set(images_of(split.training_batches(2))) != set(images)


def test_phantoms_bring_their_own_masks(config):
    split = reader(replace(config, phantom_share=1.0, phantoms=32))
    drawn = draw_teaching_slices(num_slices=32, image_size=32, seed=config.seed)
    masks = {pair[0].tobytes(): pair[1] for pair in drawn}
    assert split.num_slices == 32
    for batch in split.training_batches(1).as_numpy_iterator():
        for image, mask in zip(batch["image"], batch["mask"], strict=True):
            assert np.array_equal(mask, masks[image.tobytes()])


def test_few_phantoms_come_again_where_an_epoch_needs_more(config):
    split = reader(replace(config, phantom_share=0.9, phantoms=32))
    assert split.num_phantoms == 90
    assert len(images_of(split.training_batches(1))) == 100


def test_validation_sees_no_phantoms(config):
    config = replace(config, phantom_share=0.5, phantoms=32)
    split = reader(config, "validation")
    assert split.num_phantoms == 0
    assert images_of(split.evaluation_batches()) == images_of(
        reader(replace(config, phantom_share=0.0), "validation").evaluation_batches()
    )


def test_phantoms_are_drawn_once_and_kept_for_a_run_that_goes_on(config, monkeypatch):
    config = replace(config, phantom_share=0.5, phantoms=32)
    first = images_of(reader(config).training_batches(1))
    monkeypatch.setattr("trainer.phantom_store.draw_teaching_slices", None)
    assert images_of(reader(config).training_batches(1)) == first


def test_killed_process_that_draws_phantoms_is_told_as_one_line(config, monkeypatch):
    def fail(**settings):
        raise RuntimeError("one of 2 processes ended")

    monkeypatch.setattr("trainer.phantom_store.draw_teaching_slices", fail)
    with pytest.raises(ValueError, match="phantoms of this run were not drawn: one of 2 processes"):
        reader(replace(config, phantom_share=0.5, phantoms=32)).training_batches(1)
    assert not list(config.out.rglob("phantoms-*"))
