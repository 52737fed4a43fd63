"""Seconds go to the phase they pass in, bytes are bytes, and speed is per device."""

import os
from pathlib import Path

import pytest
import torch

from nanoaes import clock as clock_module
from nanoaes.clock import Clock, peak_memory, throughput

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def hand(monkeypatch):
    """A clock face whose hand is turned by the test: hand(seconds)."""
    now = [100.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_seconds_of_a_phase_add_up_and_are_forgotten_with_the_row(hand):
    clock = Clock(CPU)
    for seconds in (1.0, 2.0):
        hand(64.0)  # outside any phase: nobody's
        with clock("data"):
            hand(seconds)
    with clock("rollout"):
        hand(0.5)
    assert clock.row() == {"s_data": 3.0, "s_rollout": 0.5}
    assert clock.row() == {}


def test_a_phase_within_a_phase_is_taken_from_it(hand):
    clock = Clock(CPU)
    with clock("update"):
        hand(1.0)
        with clock("reference"):
            hand(4.0)
        hand(2.0)
    assert clock.row() == {"s_update": 3.0, "s_reference": 4.0}


def test_a_phase_that_ends_in_an_error_counts_and_ends(hand):
    clock = Clock(CPU)
    with pytest.raises(KeyError), clock("update"):
        hand(1.0)
        raise KeyError
    hand(8.0)
    assert clock.row() == {"s_update": 1.0}


@pytest.mark.parametrize("device, waits", [(CPU, 0), (CUDA, 2)])
def test_only_a_gpu_is_waited_for_and_only_at_the_borders(monkeypatch, hand, device, waits):
    # What was queued takes its time when it is waited for, as on a GPU.
    queue, waited = [3.0], []

    def synchronize(which):
        assert which == device
        waited.append(1)
        hand(queue.pop() if queue else 0.0)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    clock = Clock(device)
    with clock("data"):
        hand(1.0)
        queue.append(5.0)
    assert len(waited) == waits
    assert clock.row() == {"s_data": 6.0 if waits else 1.0}  # the 3 were there before


def test_peak_of_a_process_is_in_bytes():
    before = peak_memory(CPU)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    kept = torch.ones((before - resident + 2**27) // 4)  # 128 MB more than it ever was
    assert abs(peak_memory(CPU) - before - 2**27) < 2**25
    del kept
    assert peak_memory(CPU) > before + 2**26


def test_peak_of_a_gpu_begins_anew_at_each_call(monkeypatch):
    peak = [7]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats",
                        lambda device: peak.__setitem__(0, 3))
    assert [peak_memory(CUDA), peak_memory(CUDA)] == [7, 3]


def test_speed_counts_rollout_reference_and_update_of_each_device():
    seconds = {"s_data": 50.0, "s_rollout": 1.0, "s_reference": 1.0, "s_update": 2.0, "s_eval": 9.0}
    assert throughput(seconds, tokens=8000, devices=2) == {"tokens_per_s": 1000.0}
    # Of 2 devices' 100 FLOP/s over 4 s, 200 were needed.
    assert throughput(seconds, tokens=8000, devices=2, flops=200.0, peak=100.0) == {
        "tokens_per_s": 1000.0, "mfu": 0.25}
    assert "mfu" not in throughput(seconds, tokens=8, devices=1, flops=200.0)
    del seconds["s_reference"]  # --beta 0 has none
    assert throughput(seconds, tokens=3000, devices=1) == {"tokens_per_s": 1000.0}
