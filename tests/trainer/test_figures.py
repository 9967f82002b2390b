import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from trainer import figures
from trainer.figures import Prediction, _mark_sizes, draw_curves, draw_predictions
from trainer.history import COLUMNS


def make(kind: str = "worst") -> Prediction:
    return Prediction(
        kind=kind,
        slice_id="P1_z1",
        image=np.full([2, 2], 90, np.uint8),
        mask=np.array([[1, 1], [0, 0]], np.uint8),
        predicted_mask=np.array([[1, 0], [1, 0]], np.uint8),
        caption="Dice 0.500",
    )


def test_pixels_of_one_mask_alone_have_its_color():
    colors = figures._compared(make())
    assert colors[0, 0].tolist() == [255, 255, 255]
    assert colors[0, 1].tolist() == [0x00, 0xD0, 0xFF]
    assert colors[1, 0].tolist() == [0xFF, 0x9D, 0x00]
    assert colors[1, 1].tolist() == [0, 0, 0]


def test_each_slice_has_a_row(tmp_path):
    heights = []
    for count in (1, 3):
        draw_predictions([make()] * count, tmp_path / "predictions.png")
        with Image.open(tmp_path / "predictions.png") as picture:
            assert picture.width > 1000
            heights.append(picture.height)
    assert heights[1] > 2.5 * heights[0]


def test_slice_of_a_single_line_of_pixels_is_drawn(tmp_path):
    for shape in ((1, 3), (3, 1)):
        prediction = Prediction(
            kind="worst",
            slice_id="P1_z1",
            image=np.full(shape, 90, np.uint8),
            mask=np.array([1, 0, 0], np.uint8).reshape(shape),
            predicted_mask=np.array([1, 1, 0], np.uint8).reshape(shape),
            caption="Dice 0.667",
        )
        draw_predictions([prediction], tmp_path / "predictions.png")
        with Image.open(tmp_path / "predictions.png") as picture:
            assert picture.width > 1000


def test_sizes_are_marked_where_they_grew():
    def marks(*sizes):
        axes = Figure().subplots()
        _mark_sizes(axes, [{"image_size": float(size)} for size in sizes])
        lines = [line.get_xdata()[0] for line in axes.lines]
        return lines, [(text.get_text(), text.get_position()[0]) for text in axes.texts]

    assert marks(64, 64) == ([], [])
    assert marks(32, 32, 64) == ([2.5], [("32 px", 2.3), ("64 px", 3.3)])


def test_curves_are_drawn(tmp_path):
    rows = [{**dict.fromkeys(COLUMNS, 0.5), "epoch": float(epoch)} for epoch in (1, 2)]
    draw_curves(rows, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
