"""A page of slices as each simulated scanner shows them, to be looked at: python SCRIPT --out PNG.

Lung is outlined. Slices that are not asked for by name are taken evenly from all, in the order of
their names.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from slices import default_folders

from trainer.simulated_scanners import SCANNERS, simulate

OUTLINE = (255, 157, 0)
CAPTION_PX = 14


def main() -> None:
    """Reads the flags and draws the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    images, masks = default_folders()
    parser.add_argument("--images", type=Path, default=images, help="folder of slices")
    parser.add_argument("--masks", type=Path, default=masks, help="folder of masks")
    parser.add_argument("--out", type=Path, required=True, help="the PNG")
    parser.add_argument("--slices", nargs="*", default=[], help="names of slices, without ending")
    parser.add_argument("--num-slices", type=int, default=3, help="how many, if none is named")
    parser.add_argument("--scanners", nargs="*", choices=list(SCANNERS), default=list(SCANNERS))
    parser.add_argument("--tile-px", type=int, default=160, help="height and width of a picture")
    flags = parser.parse_args()
    paths = sorted(flags.images.glob("*.bmp"))
    places = np.linspace(0, len(paths) - 1, flags.num_slices + 2)[1:-1].round().astype(int)
    chosen = [flags.images / f"{name}.bmp" for name in flags.slices]
    chosen = chosen or [paths[place] for place in places]
    pairs = {path.stem: (read(path), read(flags.masks / path.name) // 255) for path in chosen}
    draw_page(pairs, scanners=flags.scanners, tile_px=flags.tile_px).save(flags.out)


def draw_page(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], *, scanners: list[str], tile_px: int
) -> Image.Image:
    """Draws a row for each slice: as it is, then as each scanner shows it, ten in a line.

    Args:
        pairs: slice and mask, [height, width] uint8, by ``slice_id``.
        scanners: names of simulated scanners.
        tile_px: height and width of a picture.
    """
    tiles = []
    for slice_id, (image, mask) in pairs.items():
        tiles.append((slice_id, image, mask))
        for name in scanners:
            tiles.append((name, *simulate(name, image=image, mask=mask, slice_id=slice_id)))
    num_columns = -(-(len(scanners) + 1) // -(-(len(scanners) + 1) // 8))
    lines_of_a_slice = -(-(len(scanners) + 1) // num_columns)
    page = Image.new(
        "RGB",
        (num_columns * tile_px, len(pairs) * lines_of_a_slice * (tile_px + CAPTION_PX)),
        "white",
    )
    pen = ImageDraw.Draw(page)
    for number, (caption, image, mask) in enumerate(tiles):
        row, place = divmod(number, len(scanners) + 1)
        line, column = divmod(place, num_columns)
        left = column * tile_px
        top = (row * lines_of_a_slice + line) * (tile_px + CAPTION_PX)
        page.paste(outlined(image, mask).resize((tile_px - 2, tile_px)), (left, top + CAPTION_PX))
        pen.text((left + 2, top + 1), caption[-(tile_px // 6) :], fill="black")
    return page


def outlined(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Gives a picture of a slice with the outline of its mask."""
    colors = np.repeat(image[:, :, np.newaxis], 3, axis=2)
    lung = mask > 0
    width = max(1, round(min(image.shape) / 250))
    colors[lung & ~ndimage.binary_erosion(lung, iterations=width)] = OUTLINE
    return Image.fromarray(colors)


def read(path: Path) -> np.ndarray:
    """Reads a BMP: [height, width] uint8."""
    with Image.open(path) as file:
        return np.asarray(file.convert("L"))


if __name__ == "__main__":
    main()
