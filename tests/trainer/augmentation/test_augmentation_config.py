import pytest

from tests.trainer.augmentation.draws_of import config_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": "up"}, "--flip is 'up'; expected one of none, horizontal"),
        ({"rotation_degrees": 181}, "--rotation-degrees is 181; expected 0 to 180"),
        ({"couch": 1.5}, "--couch is 1.5; expected 0 to 1"),
        ({"window": -0.1}, "--window is -0.1; expected 0 to 1"),
        ({"translation": 1.0}, "--translation is 1.0; expected at least 0 and less than 1"),
        ({"magnify": -0.1}, "--magnify is -0.1; expected 0 or more"),
        ({"noise": float("nan")}, "--noise is nan; expected 0 or more"),
    ],
)
def test_value_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match="expected") as caught:
        config_of(**settings)
    assert str(caught.value).startswith(message)
