"""Where the benchmarks find real slices."""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def default_folders() -> tuple[Path, Path]:
    """Gives the folders of slices and masks where the tests look for them."""
    data = Path(os.environ.get("LUNG_CT_DATA", ROOT.parent / "shared" / "data")) / "lctsc"
    return data / "images", data / "masks"


def folders(description: str, *, arguments: list[str] | None = None) -> tuple[Path, Path]:
    """Gives the folders of slices and masks, from the flags or from where the tests look."""
    images, masks = default_folders()
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--images", type=Path, default=images, help="folder of slices")
    parser.add_argument("--masks", type=Path, default=masks, help="folder of masks")
    flags = parser.parse_args(arguments)
    for folder in (flags.images, flags.masks):
        if not folder.is_dir():
            sys.exit(f"{folder} is no folder; give --images and --masks, or set LUNG_CT_DATA")
    return flags.images, flags.masks
