"""A picture of each kind of change at its extremes, to be looked at before hours of training."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image, ImageDraw

from preprocessing.manifest import DatasetManifest
from preprocessing.publish import whole_file
from preprocessing.spec import TRAIN_SPLIT
from trainer.augmentation.augment import augment
from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.draws import (
    CLIP_LIMITS,
    COUCH_CURVES,
    CROP_MARGINS,
    ELASTIC_GRID,
    LEVELS,
    RADII,
    SOFT_TISSUE_LEVELS,
    SOFT_TISSUE_WIDTHS,
    WIDTHS,
    neutral_draws,
)
from trainer.config import TrainerConfig
from trainer.failures import explained
from trainer.input_pipeline import read_examples
from trainer.resizing import resize_image, resize_mask

NUM_SLICES = 4
"""Slices in a row, from all over the training split."""

OUTLINE = (255, 60, 60)
"""Color of the outline of the mask."""

CAPTION_PX = 14
"""Height of the line of text over a picture."""

Pixels = npt.NDArray[np.uint8]
Extreme = tuple[str, dict[str, Any]]
"""A caption, and what is drawn for all slices."""


def show_augmentation(config: TrainerConfig, path: Path) -> list[str]:
    """Draws some slices of the training split of a dataset as augmentation leaves them.

    Args:
        config: the dataset, the size of a picture, and the extremes.
        path: of the PNG.

    Returns:
        The captions, from top to bottom.

    Raises:
        ValueError: if there is no such dataset.
        OSError: if the picture cannot be written.
    """
    manifest = DatasetManifest.load(config.data)
    with explained(config.data, manifest):
        num_examples = manifest.splits[TRAIN_SPLIT].num_examples
        chosen = np.linspace(0, num_examples - 1, NUM_SLICES + 2)[1:-1].astype(int)
        examples = read_examples(config.data, manifest, TRAIN_SPLIT)
        pairs = [each for n, each in enumerate(examples) if n in set(chosen)]
        images = [resize_image(pair["image"][tf.newaxis], config.image_size) for pair in pairs]
        masks = [resize_mask(pair["mask"][tf.newaxis], config.image_size) for pair in pairs]
    return draw_page(config, images=np.concatenate(images), masks=np.concatenate(masks), path=path)


def draw_page(
    config: AugmentationConfig, *, images: Pixels, masks: Pixels, path: Path
) -> list[str]:
    """Draws slices as each kind of change leaves them, one extreme in a row.

    Args:
        config: gives the extremes; what is 0 in it is left out.
        images: [num_slices, size, size, 1] gray values.
        masks: same shape, in {0, 1}.
        path: of the PNG.

    Returns:
        The captions, from top to bottom.

    Raises:
        OSError: if the picture cannot be written.
    """
    rows, captions = [], []
    for caption, drawn in (("as it is", {}), *extremes(config)):
        image, mask = _changed(config, images, masks, drawn)
        rows.append(_row(caption, image, mask))
        captions.append(caption)
    # Two columns of rows, as a page is no ribbon.
    half = -(-len(rows) // 2)
    rows += [np.full_like(rows[0], 255)] * (2 * half - len(rows))
    page = np.concatenate([np.concatenate(rows[:half]), np.concatenate(rows[half:])], axis=1)
    with whole_file(path) as aside:
        Image.fromarray(page).save(aside)
    return captions


def extremes(config: AugmentationConfig) -> Iterator[Extreme]:
    """Lists the extremes of each kind of change that a configuration has, in its order."""
    if config.flip != "none":
        yield "flip: horizontal", {"x_sign": -1.0}
    if config.flip == "horizontal_and_vertical":
        yield "flip: vertical", {"y_sign": -1.0}
    if config.quarter_turns:
        yield "quarter turn", {"angle": math.pi / 2}
    if config.rotation_degrees:
        for sign in (-1, 1):
            angle = sign * math.radians(config.rotation_degrees)
            yield f"rotation: {sign * config.rotation_degrees:+g} degrees", {"angle": angle}
    for factor in (1 + config.magnify, 1 / (1 + config.shrink)):
        if factor != 1:
            yield f"scale: {factor:.2f}", {"x_magnify": factor, "y_magnify": factor}
    if config.stretch:
        for factor in (1 + config.stretch, 1 / (1 + config.stretch)):
            root = math.sqrt(factor)
            yield f"stretch: {factor:.2f}", {"x_magnify": root, "y_magnify": 1 / root}
    if config.translation:
        shift = config.translation
        yield f"translation: {shift:g} of the image", {"x_shift": shift, "y_shift": -shift}
    if config.crop_to_body:
        for margin in CROP_MARGINS:
            yield f"crop to the body: margin {margin}", {"is_cropped": True, "crop_margin": margin}
    if config.elastic:
        nodes = (
            2
            * config.elastic
            * np.random.default_rng(0).standard_normal((ELASTIC_GRID,) * 2 + (2,))
        )
        yield f"elastic: two deviations of {config.elastic:g}", {"is_elastic": True, "nodes": nodes}
    if config.background_removal:
        yield "background removal", {"is_background_removed": True}
    if config.couch:
        for curve in COUCH_CURVES:
            yield f"couch: curve {curve}", {"has_couch": True, "couch_curve": curve}
    if config.gantry_circle:
        for radius in RADII:
            circle = {"has_circle": True, "circle_radius": radius}
            yield f"gantry circle: radius {radius} of the image", circle
    if config.low_resolution:
        factor = 1 + config.low_resolution
        yield f"low resolution: {factor:g} times", {"is_coarse": True, "coarseness": factor}
    if config.blur:
        yield f"blur: {config.blur:g}", {"is_blurred": True, "blur": config.blur}
    if config.sharpen:
        yield f"sharpen: {config.sharpen:g}", {"is_sharpened": True, "sharpen": config.sharpen}
    if config.noise:
        for kind, grain in (("smooth", 1.0), ("white", 0.0), ("sharp", -1.0)):
            noise = {"is_noisy": True, "noise": config.noise, "grain": grain}
            yield f"noise: {kind}, deviation {config.noise:g}", noise
    yield from _gray_extremes(config)


def _gray_extremes(config: AugmentationConfig) -> Iterator[Extreme]:
    if config.window:
        wide = WIDTHS[1]
        for name, low, high in (
            ("soft tissue", SOFT_TISSUE_LEVELS[1], SOFT_TISSUE_LEVELS[1] + SOFT_TISSUE_WIDTHS[0]),
            ("dense", 0.0, 1 + wide),
            ("wide", LEVELS[0], LEVELS[0] + wide),
        ):
            ends = {"window_low": low, "window_high": high, "window_distance": config.window}
            yield f"window: {name}", ends
    if config.brightness:
        for sign in (-1, 1):
            yield (
                f"brightness: {sign * config.brightness:+g}",
                {"brightness": sign * config.brightness},
            )
    for name, key, most in (
        ("contrast", "contrast", config.contrast),
        ("gamma", "exponent", config.gamma),
    ):
        if most:
            for factor in (1 / (1 + most), 1 + most):
                yield f"{name}: {factor:.2f}", {key: factor}
    if config.local_contrast:
        for name, locality in (("whole slice", 0.0), ("tiles", 1.0)):
            drawn = {"is_equalized": True, "clip_limit": CLIP_LIMITS[1], "locality": locality}
            yield f"local contrast: {name}", drawn
    if config.invert:
        yield "inverted", {"is_inverted": True}


def _changed(
    config: AugmentationConfig, images: Pixels, masks: Pixels, drawn: Mapping[str, Any]
) -> tuple[Pixels, Pixels]:
    draws = neutral_draws(len(images))
    for key, value in drawn.items():
        like = draws[key]
        draws[key] = tf.broadcast_to(tf.cast(value, like.dtype), like.shape)
    image, mask = augment(config, image=tf.constant(images), mask=tf.constant(masks), draws=draws)
    return image.numpy().round().astype(np.uint8)[..., 0], mask.numpy()[..., 0]


def _row(caption: str, images: Pixels, masks: Pixels) -> Pixels:
    """Draws slices side by side with outlines under a line of text: [height, width, 3]."""
    pictures = []
    for image, mask in zip(images, masks, strict=True):
        picture = np.repeat(image[:, :, np.newaxis], 3, axis=2)
        around = np.pad(mask, 1)
        inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        picture[(mask > 0) & (inner == 0)] = OUTLINE
        pictures.append(picture)
    row = np.concatenate(pictures, axis=1)
    line = Image.new("RGB", (row.shape[1], CAPTION_PX), "white")
    ImageDraw.Draw(line).text((2, 1), caption, fill="black")
    return np.concatenate([np.asarray(line), row])
