import numpy as np
from PIL import Image

from tests.trainer.augmentation.draws_of import config_of
from trainer.__main__ import main
from trainer.augmentation.config import AugmentationConfig
from trainer.augmentation.page import CAPTION_PX, draw_page, extremes
from trainer.config import AUGMENTATION


def test_every_kind_has_its_extremes_on_the_page():
    config = AugmentationConfig(**AUGMENTATION, invert=0.1)
    captions = " ".join(caption for caption, _ in extremes(config))
    for kind in (
        *("flip", "quarter turn", "rotation", "scale: 1.80", "scale: 0.67", "stretch"),
        *("translation", "crop", "elastic", "background", "couch", "circle", "low resolution"),
        *("blur", "sharpen", "noise", "window", "brightness", "contrast", "gamma"),
        *("local contrast", "inverted"),
    ):
        assert kind in captions


def test_what_is_off_is_not_on_the_page():
    assert not list(extremes(config_of()))
    assert [caption for caption, _ in extremes(config_of(invert=1.0))] == ["inverted"]


def test_page_shows_slices_and_outlines(tmp_path):
    images = np.full([2, 16, 16, 1], 100, np.uint8)
    masks = np.zeros_like(images)
    masks[:, 4:12, 4:12] = 1
    path = tmp_path / "page.png"
    captions = draw_page(config_of(invert=1.0), images=images, masks=masks, path=path)
    assert captions == ["as it is", "inverted"]
    with Image.open(path) as opened:
        page = np.asarray(opened)
    assert page.shape == (CAPTION_PX + 16, 2 * 2 * 16, 3)
    assert page[CAPTION_PX + 1, 1].tolist() == [100, 100, 100]
    assert page[CAPTION_PX + 1, 33].tolist() == [155, 155, 155]
    assert page[CAPTION_PX + 4, 4, 0] == 255  # the outline
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.png"]


def test_command_draws_slices_of_a_dataset(dataset, tmp_path):
    path = tmp_path / "page.png"
    assert main(["show-augmentation", "--data", str(dataset), "--out", str(path)]) == 0
    with Image.open(path) as page:
        assert page.size[0] == 2 * 4 * 128


def test_folder_that_is_no_dataset_is_told(tmp_path, capsys):
    arguments = ["show-augmentation", "--data", str(tmp_path), "--out", str(tmp_path / "p.png")]
    assert main(arguments) == 1
    assert "dataset.json" in capsys.readouterr().err
