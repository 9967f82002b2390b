"""The whole road on real slices: seconds of each stage, Dice and IoU, size of the records."""

import json
import logging
import tempfile
from pathlib import Path

from slices import folders

from serving import demo


def main() -> None:
    """Runs the demo on the slices and prints its figures as Markdown."""
    images, masks = folders(__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        demo.run(demo.DemoConfig(out=out, images=images, masks=masks))
        seconds = json.loads((out / "stages.json").read_text())
        dataset = json.loads((out / "dataset" / "dataset.json").read_text())
        overall = json.loads((out / "evaluation" / "evaluation.json").read_text())["overall"]
    files = [path for root in (images, masks) for path in root.rglob("*") if path.is_file()]
    num_bytes = sum(path.stat().st_size for path in files)
    record_bytes = sum(
        shard["num_bytes"] for split in dataset["splits"].values() for shard in split["shards"]
    )
    print(f"\n| stage | seconds |\n| --- | ---: |\n| all | {sum(seconds.values()):.1f} |")
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} |")
    print("\n| figure | value |\n| --- | ---: |")
    for name, value in overall.items():
        print(f"| {name} | {value:.4f} |")
    print(
        f"| records / files | {record_bytes / num_bytes:.3f} ({record_bytes / 2**20:.1f} MiB of "
        f"{num_bytes / 2**20:.1f} MiB) |"
    )


if __name__ == "__main__":
    main()
