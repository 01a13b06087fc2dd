import threading

import pytest
import torch

from vitreous.core.threads import SideBySide


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_keep_their_order_and_errors_are_raised(count):
    threads = SideBySide(count)
    assert threads.map(lambda item: item * item, range(20)) == [item * item for item in range(20)]
    with pytest.raises(ZeroDivisionError):
        threads.map(lambda item: 1 / item, [2, 0, 1])


def test_the_work_is_done_at_the_same_time():
    barrier = threading.Barrier(3, timeout=60)  # which one thread alone would never pass
    assert sorted(SideBySide(3).map(lambda _: barrier.wait(), range(3))) == [0, 1, 2]


def test_threads_are_divided_and_others_keep_theirs():
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        barrier = threading.Barrier(2, timeout=60)
        inside = SideBySide(2).map(lambda _: (barrier.wait(), torch.get_num_threads()), range(2))
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert [threads for _, threads in inside] == [2, 2]
        assert torch.get_num_threads() == 4
        assert found == [4]
    finally:
        torch.set_num_threads(before)


def test_a_number_set_meanwhile_changes_no_thread_that_has_not_worked_yet():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        threads, barrier = SideBySide(2), threading.Barrier(2, timeout=60)
        threads.map(
            lambda _: barrier.wait(), range(2)
        )  # both are there, and PyTorch has done nothing
        torch.set_num_threads(3)
        inside = threads.map(lambda _: (barrier.wait(), torch.get_num_threads()), range(2))
        assert [number for _, number in inside] == [2, 2]
    finally:
        torch.set_num_threads(before)
