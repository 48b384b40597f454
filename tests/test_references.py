"""Every unstructured rival against its slow reference on random models: the masks are equal, bit by bit."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
from nets import GROUPS, NAMES, Net, batches, loss_of
from torch import Tensor

import snp

SETS = {"all": [NAMES], "group": list(GROUPS.values()), "layer": [[name] for name in NAMES]}
Arrays = reference.Arrays


class Case:
    """One random model in float64, with its batches, as references want it."""

    def __init__(self, seed: int, sparsity: float, count: int = 3) -> None:
        self.seed, self.sparsity = seed, sparsity
        self.net, self.batches = Net(seed), batches(seed, count)
        self.wide = copy.deepcopy(self.net).double()
        self.weights = {name: self.wide.get_parameter(name).detach().numpy().copy() for name in NAMES}
        self.count = int(sparsity * sum(w.size for w in self.weights.values()))

    def gradient(self, weights: Arrays, batch: int) -> Arrays:
        """The gradient of the loss in every weight, at these weights."""
        with torch.no_grad():
            for name, value in weights.items():
                self.wide.get_parameter(name).copy_(torch.from_numpy(value))
        self.wide.zero_grad()
        loss_of(self.wide, tuple(part.double() for part in self.batches[batch])).backward()
        return {name: self.wide.get_parameter(name).grad.numpy().copy() for name in NAMES}

    def inputs(self) -> dict[str, list[Tensor]]:
        """What flows into every map, batch by batch, in float32."""
        found: dict[str, list[Tensor]] = {name: [] for name in NAMES}
        with torch.no_grad():
            for image, words in self.batches:
                v, t = self.net.v1(image).relu(), self.net.t1(words).relu()
                joint = self.net.v2(v).mean(1) * self.net.t2(t).mean(1)
                for name, x in zip(NAMES, (image, v, words, t, joint), strict=True):
                    found[name].append(x)
        return found

    def trained(self, masks: Arrays, steps: range, lr: float) -> Arrays:
        """|w| after plain steps from the dense weights, all that has fallen set to zero after each."""
        model = copy.deepcopy(self.net).double()
        for step in [None, *steps]:
            if step is not None:
                model.zero_grad()
                loss_of(model, tuple(part.double() for part in self.batches[step % len(self.batches)])).backward()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter -= lr * (0 if step is None else parameter.grad)
                    parameter *= torch.from_numpy(masks[name]) if name in masks else 1
        return {name: model.get_parameter(name).detach().abs().numpy() for name in NAMES}

    def assert_equal(self, masks: dict[str, Tensor], expected: Arrays) -> None:
        for name in NAMES:
            found = masks[name].numpy() if name in masks else np.ones_like(expected[name])
            assert np.array_equal(found, expected[name]), (self.seed, name)

    def compress(self, method: str, **more):
        return snp.compress(
            self.net,
            method,
            sparsity=self.sparsity,
            groups=GROUPS,
            calibration=self.batches,
            loss=loss_of,
            seed=self.seed,
            **more,
        )


def magnitude(case: Case, scope: str) -> Arrays:
    return reference.by_sets({name: np.abs(w) for name, w in case.weights.items()}, SETS[scope], case.count)


def snip(case: Case) -> Arrays:
    found = [case.gradient(case.weights, i) for i in range(3)]
    return {name: np.abs(w * sum(g[name] for g in found)) for name, w in case.weights.items()}


def multiflow(case: Case) -> Arrays:
    wide = {name: torch.cat(xs).double().flatten(0, -2) for name, xs in case.inputs().items()}
    scores = {name: reference.flow(case.weights[name], x.square().sum(0).numpy() / 12) for name, x in wide.items()}
    return reference.multiflow(case.weights, scores, SETS["group"], case.count)


REFERENCES = {
    "random": lambda case: reference.random(case.weights, case.count, case.seed),
    "omp": lambda case: magnitude(case, "all"),
    "modalitymp": lambda case: magnitude(case, "group"),
    "localmp": lambda case: magnitude(case, "layer"),
    "l2": lambda case: reference.keep_highest(
        {name: np.abs(w) / np.sqrt((w**2).sum()) for name, w in case.weights.items()}, case.count
    ),
    "lamp": lambda case: reference.keep_highest(
        {name: reference.lamp(w) for name, w in case.weights.items()}, case.count
    ),
    "snip": lambda case: reference.keep_highest(snip(case), case.count),
    "itersnip": lambda case: reference.itersnip(case.weights, case.gradient, 3, case.count),
    "multiflow": multiflow,
}
at_every_sparsity = pytest.mark.parametrize("sparsity", [0.5, 0.63, 0.75, 0.9])


@pytest.mark.slow
@at_every_sparsity
@pytest.mark.parametrize("method", REFERENCES)
def test_masks_equal_those_of_a_slow_reference_bit_by_bit(method, sparsity):
    for seed in range(10):
        case = Case(seed, sparsity)
        _, plan = case.compress(method)
        case.assert_equal(plan.masks, REFERENCES[method](case))


@pytest.mark.slow
@at_every_sparsity
def test_official_multiflow_gives_masks_and_scores_of_the_public_order_of_operations_bit_by_bit(sparsity):
    for seed in range(10):
        case = Case(seed, sparsity)
        weights = {name: case.net.get_parameter(name).detach() for name in NAMES}
        masks, scores = reference.official_multiflow(weights, case.inputs(), SETS["group"], sparsity)
        _, plan, found = case.compress("multiflow", mode="official", scores=True)
        case.assert_equal(plan.masks, {name: mask.numpy() for name, mask in masks.items()})
        assert all(torch.equal(found[name], scores[name]) for name in NAMES)


@pytest.mark.slow
@at_every_sparsity
@pytest.mark.parametrize("method, rounds, block", [("chita", 1, 10_000), ("chita++", 4, 20)])
def test_chita_finds_the_masks_of_the_dense_quadratic_problem_and_its_weights(method, rounds, block, sparsity):
    """The reference holds the whole curvature matrix, which the method never makes.

    The ridge is one at which rounding does not grow from stage to stage, as no model here has been trained.
    """
    for seed in range(10):
        case = Case(seed, sparsity)
        masks, weights = reference.chita(case.weights, case.gradient, 3, case.count, rounds, ridge=0.1)
        small, plan = case.compress(method, ridge=0.1, block=block)
        case.assert_equal(plan.masks, masks)
        for name in NAMES:
            expected = torch.from_numpy(weights[name]).float()
            torch.testing.assert_close(small.get_parameter(name).detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@at_every_sparsity
@pytest.mark.parametrize("ridge", [1e-2, 1e-4])
def test_every_step_of_chita_lowers_its_objective_and_moves_the_support(ridge, sparsity):
    """The objective by all gradients and weights, after 0, 1, 2, .. steps; before the first it is that of magnitude."""
    for seed in range(8):
        case = Case(seed, sparsity)
        rows = [np.concatenate([g.ravel() for g in case.gradient(case.weights, i).values()]) for i in range(3)]
        dense = np.concatenate([w.ravel() for w in case.weights.values()])
        found, plans = [], []
        for steps in (0, 1, 2, 3, 20):
            small, plan = case.compress("chita", ridge=ridge, iterations=steps)
            d = np.concatenate([small.get_parameter(n).detach().numpy().ravel() for n in NAMES]) - dense
            found.append(sum((row @ d + 1 / 4) ** 2 for row in rows) / 2 + 3 * ridge * d @ d / 2)
            plans.append(plan)
        assert all(b <= a * (1 + 1e-6) for a, b in pairwise(found)), (seed, found)
        assert plans[0] == case.compress("omp")[1]
        assert found[-1] < 0.99 * found[0] and plans[-1] != plans[0], (seed, found)


@pytest.mark.slow
@at_every_sparsity
def test_tamt_trains_the_mask_that_plain_adam_trains(sparsity):
    for seed in range(10):
        case = Case(seed, sparsity, count=8)
        _, plan = case.compress("tamt")
        case.assert_equal(plan.masks, reference.tamt(case.weights, case.gradient, 8, case.count))


@pytest.mark.slow
@at_every_sparsity
@pytest.mark.parametrize("ticket", ["found", "random"])
def test_a_lottery_ticket_is_that_of_plain_training_pruning_and_rewinding(ticket, sparsity):
    """Two rounds of four steps; batches go on from round to round."""
    for seed in range(10):
        case = Case(seed, sparsity)
        source = torch.Generator().manual_seed(seed)

        def judge(masks: Arrays, r: int, case: Case = case, source: torch.Generator = source) -> Arrays:
            if ticket == "random":
                return {name: torch.rand(w.shape, generator=source).numpy() for name, w in case.weights.items()}
            return case.trained(masks, range(4 * r, 4 * r + 4), lr=0.3)

        _, plan = case.compress(
            "lottery", steps=8, rounds=2, ticket=ticket, optimizer=lambda ps: torch.optim.SGD(ps, lr=0.3)
        )
        case.assert_equal(plan.masks, reference.lottery(case.weights, judge, case.count, 2))
