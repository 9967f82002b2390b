import math

import pytest

from trainer.history import (
    COLUMNS,
    best_epoch,
    check_finite,
    read_history,
    should_stop,
    write_history,
)


def rows_of(*validation_losses: float) -> list[dict[str, float]]:
    return [
        {**dict.fromkeys(COLUMNS, 0.125), "epoch": float(epoch), "validation_loss": loss}
        for epoch, loss in enumerate(validation_losses, start=1)
    ]


def test_best_epoch_is_the_first_with_the_lowest_loss():
    assert best_epoch(rows_of(0.5, 0.2, 0.3, 0.2)) == 2
    assert best_epoch([]) == 0


def test_training_stops_after_patience_epochs_without_a_lower_loss():
    assert not should_stop(rows_of(0.5, 0.2, 0.3), epochs=50, patience=2)
    assert should_stop(rows_of(0.5, 0.2, 0.3, 0.2), epochs=50, patience=2)


def test_training_stops_after_the_last_epoch():
    assert not should_stop([], epochs=2, patience=5)
    assert should_stop(rows_of(0.5, 0.4), epochs=2, patience=5)


def test_rows_survive_the_file(tmp_path):
    rows = rows_of(0.1 + 0.2, 1 / 3, 0.25)
    write_history(tmp_path / "history.csv", rows)
    assert read_history(tmp_path / "history.csv", num_epochs=3) == rows
    assert read_history(tmp_path / "history.csv", num_epochs=2) == rows[:2]
    assert (tmp_path / "history.csv").read_text().startswith("epoch,train_loss,train_accuracy,")


def test_history_that_is_shorter_than_the_checkpoint_is_an_error(tmp_path):
    write_history(tmp_path / "history.csv", rows_of(0.5))
    with pytest.raises(ValueError, match=r"history.csv has 1 epochs, .* of epoch 2; restore"):
        read_history(tmp_path / "history.csv", num_epochs=2)


def test_missing_or_damaged_history_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"history.csv cannot be read .*FileNotFoundError"):
        read_history(tmp_path / "history.csv", num_epochs=1)
    (tmp_path / "history.csv").write_text("epoch\nfirst\n")
    with pytest.raises(ValueError, match=r"history.csv cannot be read"):
        read_history(tmp_path / "history.csv", num_epochs=1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_the_run_and_names_the_steps(loss):
    with pytest.raises(FloatingPointError, match="between steps 7 and 9; try a lower"):
        check_finite(loss, first_step=7, last_step=9)


def test_finite_loss_goes_on():
    check_finite(0.5, first_step=1, last_step=2)
