"""Which slot runs what, when numbers and process ids of slots are used again."""

from __future__ import annotations

from workers.shared import Present, Running


def test_a_slot_that_takes_the_number_of_another_is_not_taken_for_it():
    present = Present()
    present.open(1, 100)
    present.enter(7, 5000)
    present.open(1, 200)
    assert present.of(100) is None
    assert present.of(200) is None
    present.enter(8, 1000)
    assert present.of(200) == Running(8, 1.0)


def test_a_process_id_that_comes_back_under_another_number_means_the_new_slot():
    present = Present()
    present.open(0, 100)
    present.enter(7, 5000)
    present.open(3, 100)
    assert present.of(100) is None
    present.enter(8, 1000)
    assert present.of(100) == Running(8, 1.0)
