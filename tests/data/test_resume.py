"""The order of an epoch is a function of (seed, epoch), and can be entered in the middle."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from fourfold.data.resume import FreshSampler, ResumableSampler, eval_loader, train_loader


def epoch_of(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)


def test_order_depends_on_seed_and_epoch_only():
    a, b = ResumableSampler(50, seed=3), ResumableSampler(50, seed=3)
    first = epoch_of(a, 4)
    epoch_of(b, 0)
    assert epoch_of(b, 4) == first
    assert sorted(first) == list(range(50))
    assert epoch_of(a, 5) != first
    assert epoch_of(ResumableSampler(50, seed=4), 4) != first


def test_starting_in_the_middle():
    whole, late = ResumableSampler(50, seed=3), ResumableSampler(50, seed=3)
    late.start_at(2, 17)
    assert list(late) == epoch_of(whole, 2)[17:]
    # Lightning counts batches from the start of the epoch, and later epochs are whole.
    assert len(late) == 50
    assert epoch_of(late, 3) == epoch_of(whole, 3)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch(world_size):
    samplers = [ResumableSampler(50, seed=3, world_size=world_size, rank=rank) for rank in range(world_size)]
    orders = [epoch_of(sampler, 1) for sampler in samplers]
    assert {len(order) for order in orders} == {len(samplers[0])}
    assert set().union(*orders) == set(range(50))


def test_without_shuffling():
    assert list(ResumableSampler(4, shuffle=False)) == [0, 1, 2, 3]


def test_fresh_indices_never_repeat():
    sampler = FreshSampler(10, seed=3)
    assert epoch_of(sampler, 0) == list(range(10))
    assert epoch_of(sampler, 7) == list(range(70, 80))


def test_bad_arguments():
    with pytest.raises(ValueError, match="empty"):
        ResumableSampler(0)
    with pytest.raises(ValueError, match="rank"):
        ResumableSampler(5, world_size=2, rank=2)


def test_loaders_leave_the_global_generator_alone():
    data = TensorDataset(torch.arange(10))
    before = torch.get_rng_state()
    for loader in (train_loader(data, batch_size=3, seed=0), eval_loader(data, batch_size=3)):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_last_batch():
    data = TensorDataset(torch.arange(10))
    assert len(train_loader(data, batch_size=4, seed=0)) == 2
    assert len(train_loader(data, batch_size=4, seed=0, drop_last=False)) == 3
    # A data set smaller than a batch is still trained on.
    assert len(train_loader(data, batch_size=64, seed=0)) == 1
    assert len(eval_loader(data, batch_size=4)) == 3
