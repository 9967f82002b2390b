import math

import pytest

from trainer.history import (
    COLUMNS,
    best_epoch,
    check_finite,
    should_stop,
    write_history,
)


def rows_of(*validation_losses: float) -> list[dict[str, float]]:
    return [
        {
            **dict.fromkeys(COLUMNS, 0.125),
            "epoch": float(epoch),
            "image_size": 64.0,
            "validation_loss": loss,
        }
        for epoch, loss in enumerate(validation_losses, start=1)
    ]


def growing_rows() -> list[dict[str, float]]:
    """Three epochs at 32 pixels, then three at 64, which are harder."""
    rows = rows_of(0.5, 0.1, 0.2, 0.4, 0.3, 0.35)
    for row in rows[:3]:
        row["image_size"] = 32.0
    return rows


def test_best_epoch_is_the_first_with_the_lowest_loss():
    assert best_epoch(rows_of(0.5, 0.2, 0.3, 0.2)) == 2
    assert best_epoch([]) == 0


def test_training_stops_after_patience_epochs_without_a_lower_loss():
    assert not should_stop(rows_of(0.5, 0.2, 0.3), epochs=50, patience=2)
    assert should_stop(rows_of(0.5, 0.2, 0.3, 0.2), epochs=50, patience=2)


def test_best_epoch_is_one_of_the_largest_size():
    rows = growing_rows()
    assert [best_epoch(rows[:count]) for count in range(1, 7)] == [1, 2, 2, 4, 5, 5]


def test_patience_begins_anew_where_the_size_grows():
    rows = growing_rows()
    assert not should_stop(rows[:4], epochs=50, patience=2)
    assert should_stop(rows, epochs=50, patience=1)
    assert not should_stop(rows, epochs=50, patience=2)


def test_training_stops_after_the_last_epoch():
    assert not should_stop([], epochs=2, patience=5)
    assert should_stop(rows_of(0.5, 0.4), epochs=2, patience=5)


def test_file_has_a_row_for_each_epoch_with_all_digits(tmp_path):
    write_history(tmp_path / "history.csv", rows_of(0.1 + 0.2, 1 / 3))
    header, first, second = (tmp_path / "history.csv").read_text().splitlines()
    assert header.startswith("epoch,image_size,train_loss,train_accuracy,")
    assert first.startswith("1,64,0.125,")
    column = header.split(",").index("validation_loss")
    assert float(first.split(",")[column]) == 0.1 + 0.2
    assert float(second.split(",")[column]) == 1 / 3


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_the_run_and_names_the_step(loss):
    message = f"the training loss became {loss} in step 7 of epoch 2; try a lower --learning-rate"
    with pytest.raises(FloatingPointError, match=message):
        check_finite(loss, epoch=2, step=7, what="training")


def test_finite_loss_goes_on():
    check_finite(0.5, epoch=1, step=1, what="validation")
