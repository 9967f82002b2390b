"""Where the benchmarks find real slices."""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def folders(description: str) -> tuple[Path, Path]:
    """Gives the folders of slices and masks, from the flags or from where the tests look."""
    data = Path(os.environ.get("LUNG_CT_DATA", ROOT.parent / "shared" / "data")) / "lctsc"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--images", type=Path, default=data / "images", help="folder of slices")
    parser.add_argument("--masks", type=Path, default=data / "masks", help="folder of masks")
    arguments = parser.parse_args()
    for folder in (arguments.images, arguments.masks):
        if not folder.is_dir():
            sys.exit(f"{folder} is no folder; give --images and --masks, or set LUNG_CT_DATA")
    return arguments.images, arguments.masks
