import pytest
import tensorflow as tf

from preprocessing.framing import DamagedShardError, read_records, write_record

RECORDS = [b"first", b"", b"third " * 100]


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        for record in RECORDS:
            write_record(file, record)
    return path


def test_tensorflow_reads_what_is_written(shard):
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(shard))] == RECORDS


def test_what_tensorflow_writes_is_read(tmp_path):
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert list(read_records(path)) == RECORDS


def test_empty_file_has_no_records(tmp_path):
    (tmp_path / "empty").touch()
    assert list(read_records(tmp_path / "empty")) == []


def test_truncated_shard_is_told_at_its_record(shard):
    data = shard.read_bytes()
    ends = (21, 37, len(data))
    for length in range(len(data)):
        shard.write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        if length in (0, *ends):
            assert list(read_records(shard)) == RECORDS[:whole]
        else:
            with pytest.raises(DamagedShardError, match=f"damaged or truncated at record {whole};"):
                list(read_records(shard))


def test_flipped_bit_is_told(shard):
    data = shard.read_bytes()
    for at in range(len(data)):
        shard.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(DamagedShardError, match="expected whole records with matching"):
            list(read_records(shard))
