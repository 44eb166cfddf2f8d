"""The loop over the batches of an evaluator."""

import threading
from collections.abc import Sequence

import pytest

from tsmjax.evals.evaluator import read_ahead


class Numbers(Sequence):
    """0, 1, 2, …, of which it is known when they were asked for."""

    def __init__(self, count):
        self.asked = [threading.Event() for _ in range(count)]

    def __len__(self):
        return len(self.asked)

    def __getitem__(self, number):
        self.asked[number].set()
        return number


def test_a_batch_is_read_while_the_one_before_is_worked_on():
    numbers = Numbers(4)
    seen = []
    for number in read_ahead(numbers):
        seen.append(number)
        assert numbers.asked[min(number + 1, 3)].wait(timeout=10)
        assert not any(event.is_set() for event in numbers.asked[number + 2 :])
    assert seen == [0, 1, 2, 3]
    assert list(read_ahead(Numbers(0))) == []


def test_what_reading_raises_arrives():
    class Broken(Numbers):
        def __getitem__(self, number):
            if number == 1:
                raise OSError("gone")
            return super().__getitem__(number)

    read = read_ahead(Broken(3))
    assert next(read) == 0
    with pytest.raises(OSError, match="gone"):
        next(read)
