"""A run that is killed at any moment leaves a whole dataset or none, and can be run again."""

import json
import subprocess
import sys

import pytest

NUM_KILLS = 20

# Beam takes seconds to load, so it is loaded once, and each run is a fork that is killed.
KILLED_AT_RANDOM = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
from preprocessing import pipeline
from preprocessing.config import TfrecordsConfig
from preprocessing.manifest import DatasetManifest

images, masks, out, num_kills = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]

def start(seed):
    pid = os.fork()
    if pid == 0:
        config = TfrecordsConfig(
            images=images, masks=masks, out=out, overwrite=True, num_shards=6, seed=seed
        )
        pipeline.run(config)
        os._exit(0)
    return pid

def look():
    if not out.exists():
        return None
    dataset = DatasetManifest.load(out)
    for split in dataset.splits.values():
        for shard in split.shards:
            content = (out / shard.filename).read_bytes()
            if hashlib.sha256(content).hexdigest() != shard.sha256:
                raise ValueError(f"{shard.filename} is damaged")
    return dataset.options["seed"]

begin = time.monotonic()
os.waitpid(start(0), 0)
duration = time.monotonic() - begin
seeds, num_killed, moments = [look()], 0, random.Random(0)
for seed in range(1, int(num_kills) + 1):
    pid = start(seed)
    time.sleep(moments.uniform(0, 1.1 * duration))
    os.kill(pid, signal.SIGKILL)
    num_killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    seeds.append(look())
os.waitpid(start(99), 0)
seeds.append(look())
left = sorted(os.listdir(out.parent))
print(json.dumps({"seeds": seeds, "num_killed": num_killed, "left": left}))
"""


@pytest.mark.slow
def test_run_killed_at_any_moment_leaves_a_whole_dataset_or_none(pairs):
    arguments = [str(pairs.images), str(pairs.masks), str(pairs.out), str(NUM_KILLS)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_RANDOM, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["num_killed"] >= NUM_KILLS / 2  # the others had just finished
    assert told["seeds"][0] == 0
    assert told["seeds"][-1] == 99
    newest = 0
    for seed, found in enumerate(told["seeds"][1:-1], start=1):
        # The dataset of an earlier run or of this one, or none; never an older one than before.
        assert found is None or newest <= found <= seed
        newest = newest if found is None else found
    assert told["left"] == ["dataset", "images", "masks"]
