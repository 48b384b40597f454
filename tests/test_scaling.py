"""The model of scaling, by hand: compute, all-reduce, the slowest of many GPUs, and rows beside each other."""

import numpy as np
import pytest

from snp.report.scaling import Cluster, Work, simulate

CLUSTER = Cluster(peak=100.0, share=0.5, half=1.0, node=4, within=10.0, between=5.0, hop=0.25, hidden=0.5)
STEADY = np.ones(3)


def test_a_single_sample_reaches_half_of_what_many_do() -> None:
    # 50 operations a sample at 100 * 0.5: one second for each of very many; one sample alone runs at half of it
    assert CLUSTER.compute(50, 1) == pytest.approx(2.0)
    assert CLUSTER.compute(50, 999) == pytest.approx(1000.0)


def test_a_ring_in_the_node_is_followed_by_one_of_the_nodes() -> None:
    # 20 bytes: 2 * 3/4 * 20/10 and 6 hops inside; 2 * 1/2 * 20/5 and 2 hops between two nodes
    assert CLUSTER.all_reduce(20, 4) == pytest.approx(3.0 + 1.5)
    assert CLUSTER.all_reduce(20, 8) == pytest.approx(4.5 + 4.0 + 0.5)


def test_only_what_the_backward_pass_does_not_hide_costs_time() -> None:
    alone = CLUSTER.compute(50, 4)  # 5 seconds, of which half is backward: 1.25 of it can hide gradients
    point = simulate(Work(50, 20, 16), STEADY, CLUSTER, 4)
    assert point.step == pytest.approx(alone + 4.5 - 0.5 * alone / 2)
    assert point.throughput == pytest.approx(16 / point.step)
    assert simulate(Work(50, 20, 16), STEADY, CLUSTER, 1).efficiency == pytest.approx(1.0)


def test_a_step_waits_for_the_slowest_gpu() -> None:
    # one step in two takes twice as long; of two GPUs one at least is slow in three steps of four
    spread = np.array([1.0, 2.0])
    one, two = (simulate(Work(50, 0, 2), spread, Cluster(100.0, 0.5, 1.0, 4, 10.0, 5.0, 0.0), gpus) for gpus in (1, 2))
    assert one.step == pytest.approx(1.5 * 3.0, rel=0.02)
    assert two.step == pytest.approx(1.75 * 2.0, rel=0.02)


def test_parts_pass_one_after_the_other_and_are_as_small_as_the_training_loop_makes_them() -> None:
    # 64 samples in 32 parts: on one GPU 2 at a time; on eight each has 8 of them, in 4 parts of 2 again
    work = Work(50, 0, 64, parts=32)
    assert [work.parts_on(gpus) for gpus in (1, 8, 16, 32, 64)] == [32, 4, 2, 1, 1]
    at_once = Cluster(100.0, 0.5, 1.0, 4, 10.0, 5.0, hop=0.0)  # nothing is to be added up
    eight, alone = (simulate(work, STEADY, at_once, gpus) for gpus in (8, 1))
    assert eight.step == pytest.approx(4 * CLUSTER.compute(50, 2)) and eight.at_once == 2
    assert alone.step == pytest.approx(32 * CLUSTER.compute(50, 2)) and alone.at_once == 2
    # two at a time reach two thirds of what many would, where eight at a time would reach eight ninths
    assert alone.step == pytest.approx(simulate(Work(50, 0, 64, parts=8), STEADY, CLUSTER, 1).step * (8 / 9) / (2 / 3))


def test_a_step_is_no_shorter_than_the_decoding_of_its_pictures() -> None:
    cluster = Cluster(100.0, 0.5, 1.0, 4, 10.0, 5.0, 0.0, loaders=2)
    quick, slow = (simulate(Work(50, 0, 16, decoding=seconds), STEADY, cluster, 4) for seconds in (1.0, 10.0))
    assert quick.decoding == 2.0 and quick.step == pytest.approx(cluster.compute(50, 4))  # 5 seconds
    assert slow.decoding == slow.step == 20.0 and slow.throughput == pytest.approx(16 / 20)
