import numpy as np
import pytest

from trainer.test_time import FLIP_CHOICES, FLIP_SETS, check_flips, flipped, mean_of_flips

IMAGE = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)


def test_slice_as_it_came_is_always_the_first():
    for flips in FLIP_CHOICES:
        assert np.array_equal(flipped(IMAGE, flips)[0], IMAGE)
    assert len(flipped(IMAGE, "none")) == 1


def test_horizontal_flip_swaps_left_and_right():
    assert flipped(IMAGE, "horizontal")[1:].tolist() == [[[3, 2, 1], [6, 5, 4]]]


def test_all_flips_are_four():
    assert flipped(IMAGE, "all")[1:].tolist() == [
        [[3, 2, 1], [6, 5, 4]],
        [[4, 5, 6], [1, 2, 3]],
        [[6, 5, 4], [3, 2, 1]],
    ]


@pytest.mark.parametrize("flips", FLIP_CHOICES)
def test_probabilities_come_back_to_their_place(flips):
    probability = IMAGE / np.float32(8)
    mean = mean_of_flips(flipped(probability, flips), flips)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, probability, rtol=1e-6)


def test_mean_is_taken_at_each_place():
    plain = np.array([[0.0, 1.0]], np.float32)
    of_flip = np.array([[0.5, 0.25]], np.float32)
    mean = mean_of_flips(np.stack([plain, of_flip]), "horizontal")
    assert mean.tolist() == [[0.125, 0.75]]


def test_single_probability_keeps_its_bits():
    probability = np.random.default_rng(0).random([1, 5, 7]).astype(np.float32)
    assert np.array_equal(mean_of_flips(probability, "none"), probability[0])


def test_another_number_of_probabilities_is_refused():
    with pytest.raises(ValueError, match="received 1 probabilities; expected 4, one for each flip"):
        mean_of_flips(np.zeros([1, 2, 2], np.float32), "all")


def test_unknown_set_of_flips_is_refused():
    for flips in FLIP_SETS:
        check_flips(flips)
    with pytest.raises(ValueError, match="--flips is 'up'; expected one of none, horizontal, all"):
        check_flips("up")
