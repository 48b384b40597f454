"""Shared weights in use: none is gathered without need, none is used that is stale, plain copies compute the same."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from test_surgery import random_plan
from torch import nn
from towers import PATHS, example, loss_of, two_towers, views

import snp
from snp.bench.inference import resident
from snp.compression.modules import Attention
from snp.compression.plan import Plan, Share, shapes
from snp.compression.surgery import apply
from snp.compression.tied import TiedLinear
from snp.compression.tower import COMPONENTS
from snp.errors import InputError


def model(share: float = 0.5, keep: float = 0.6) -> nn.Module:
    """Cut and tied, in eval mode."""
    return apply(two_towers(), random_plan(views(two_towers()), keep=keep, share=share), PATHS).eval()


def tied_whole() -> nn.Module:
    """All layers of the text tower are those of the vision tower."""
    sizes = shapes(views(two_towers()))
    every = {c: torch.ones(sizes["text"].units(c, "share"), dtype=torch.bool) for c in COMPONENTS}
    shares = [Share(("text", layer, c), ("vision", layer), every[c]) for layer in (0, 1) for c in COMPONENTS]
    return apply(two_towers(), Plan(sizes, shares=tuple(shares)), PATHS).eval()


def tied(model: nn.Module) -> list[TiedLinear]:
    return [module for module in model.modules() if isinstance(module, TiedLinear)]


def gathered(model: nn.Module) -> torch.Tensor:
    """What a pass gives that keeps nothing: one that records gradients."""
    with torch.enable_grad():
        return copy.deepcopy(model)(*example()).detach()


def asked(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(*example())


# ---------------------------------------------------------------- tied whole


def test_a_map_that_is_tied_whole_uses_the_weight_of_its_donor_in_training_too() -> None:
    compressed = tied_whole().train()
    assert len(tied(compressed)) == 8 and all(module.whole for module in tied(compressed))
    for module in tied(compressed):
        weight, bias = module.effective()
        (donor,) = module.donors
        assert weight is donor.weight
        assert torch.equal(bias, donor.bias if module.dim == 0 else module.bias)


def test_every_parameter_has_a_gradient_even_where_a_layer_stores_no_unit() -> None:
    """A norm over all gradients must not depend on which of them are there."""
    for compressed, empty in ((tied_whole(), True), (model(), False)):
        loss_of(compressed, example()).backward()
        assert any(not parameter.numel() for parameter in compressed.parameters()) == empty
        assert all(p.grad is not None and p.grad.shape == p.shape for p in compressed.parameters())


RUNS = {
    "one part of a donor": ([5, 6, 7], ((1, 2, 5),)),
    "own, then some of a donor": ([0, 1, 2, 5, 6], ((0, 0, 3), (1, 2, 4))),
    "two donors, whole": ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], ((0, 0, 3), (1, 0, 6), (2, 0, 4))),
    "in another order": ([9, 10, 0, 1], ((2, 0, 2), (0, 0, 2))),
    "one by one": ([0, 2, 4, 6, 8, 10], ()),
}


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("name", RUNS)
def test_runs_of_units_are_read_as_units_one_by_one_are(name: str, dim: int) -> None:
    index, runs = RUNS[name]
    torch.manual_seed(0)
    shape = {0: lambda n: (n, 4), 1: lambda n: (4, n)}[dim]
    donors = tuple(nn.Linear(*reversed(shape(n))) for n in (6, 4))
    own = TiedLinear(torch.randn(shape(3)), torch.randn(shape(3)[0]), torch.tensor(index), donors, dim)
    assert own.runs == runs and not own.whole
    parts = (own, *donors)
    weight, bias = own.effective()
    assert torch.equal(weight, torch.cat([part.weight for part in parts], dim).index_select(dim, torch.tensor(index)))
    if dim == 0:
        assert torch.equal(bias, torch.cat([part.bias for part in parts])[index])
    use = torch.randn_like(weight)
    (weight * use).sum().backward()
    got = torch.cat([torch.zeros_like(p.weight) if p.weight.grad is None else p.weight.grad for p in parts], dim)
    assert torch.equal(got, torch.zeros_like(got).index_copy(dim, torch.tensor(index), use))


# ---------------------------------------------------------------- kept, and never stale


def test_for_inference_weights_are_gathered_once() -> None:
    compressed = model()
    first = asked(compressed)
    kept = [module.kept for module in tied(compressed)]
    assert all(kept) and torch.equal(asked(compressed), first)
    assert [module.kept for module in tied(compressed)] == kept  # the same objects
    with torch.inference_mode():
        assert torch.equal(compressed(*example()), first)
    assert [module.kept for module in tied(compressed)] == kept
    torch.testing.assert_close(first, gathered(compressed), atol=1e-6, rtol=1e-6)


def test_what_is_kept_is_no_part_of_the_state_and_costs_memory_that_is_counted() -> None:
    compressed = model()
    names, before = list(compressed.state_dict()), resident(compressed)
    asked(compressed)
    assert list(compressed.state_dict()) == names == list(model().state_dict())
    more = sum(4 * (m.out_features * m.in_features + len(m.bias if m.dim else m.index)) for m in tied(compressed))
    assert before == 4 * sum(p.numel() for p in compressed.parameters()) + compressed.text.attn_mask.nbytes
    assert resident(compressed) == before + more
    compressed.train()
    assert resident(compressed) == before


def fused_step(model: nn.Module) -> None:
    """Fused optimizers write without being counted by torch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def replaced(model: nn.Module) -> None:
    donor = model.vision.blocks[0].mlp.fc1
    donor.weight = nn.Parameter(donor.weight.detach() * 2)


@torch.no_grad()
def one_weight(model: nn.Module) -> None:
    model.vision.blocks[0].mlp.fc1.weight[3] += 1


@torch.inference_mode()
def in_inference_mode(model: nn.Module) -> None:
    model.vision.blocks[1].mlp.fc1.bias.add_(1)


def as_an_average_is_swapped_in(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data * 0.5)


def moved_memory(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data * 0.5


WRITES: dict[str, Callable[[nn.Module], object]] = {
    "a donor's weights in place": one_weight,
    "in inference mode": in_inference_mode,
    "a fused optimizer": fused_step,
    "weights that are loaded": lambda m: m.load_state_dict(two_towers_compressed(seed=5)),
    "weights that are put in the place of others": lambda m: m.load_state_dict(two_towers_compressed(5), assign=True),
    "another parameter": replaced,
    "an average of weights through .data": as_an_average_is_swapped_in,
    "other memory behind a parameter": moved_memory,
    "half precision and back": lambda m: m.half().float(),
    "double precision": lambda m: m.double().float(),
    "a vector of all parameters": lambda m: nn.utils.vector_to_parameters(
        0.5 * nn.utils.parameters_to_vector(m.parameters()), m.parameters()
    ),
}


def two_towers_compressed(seed: int) -> dict[str, torch.Tensor]:
    return apply(two_towers(seed), random_plan(views(two_towers())), PATHS).state_dict()


@pytest.mark.parametrize("what", WRITES)
def test_a_stale_weight_is_never_used(what: str) -> None:
    compressed = model()
    before = asked(compressed)
    WRITES[what](compressed)
    now = asked(compressed)
    torch.testing.assert_close(now, gathered(compressed), atol=1e-6, rtol=1e-6)
    assert torch.equal(now, before) == (what == "double precision")


def test_training_in_eval_mode_is_seen_by_the_next_pass() -> None:
    compressed = model()
    asked(compressed)
    optimizer = torch.optim.SGD(compressed.parameters(), lr=0.1, fused=True)
    loss_of(compressed, example()).backward()
    assert not any(module.kept for module in tied(compressed))
    optimizer.step()
    torch.testing.assert_close(asked(compressed), gathered(compressed), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("way", ["deepcopy", "torch.save"])
def test_copies_keep_nothing_of_the_model_that_they_are_of(way: str) -> None:
    compressed = model()
    before = asked(compressed)
    if way == "deepcopy":
        twin = copy.deepcopy(compressed)
    else:
        file = io.BytesIO()
        torch.save(compressed, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert not any(module.kept for module in tied(twin))
    assert torch.equal(asked(twin), before)
    one_weight(twin)
    assert torch.equal(asked(compressed), before) and not torch.equal(asked(twin), before)
    torch.testing.assert_close(asked(twin), gathered(twin), atol=1e-6, rtol=1e-6)


def test_tensors_that_stand_in_for_parameters_are_used_and_not_kept() -> None:
    compressed = model()
    before = asked(compressed)
    others = {name: 0.5 * p.detach() for name, p in compressed.named_parameters()}
    batch = example()

    def scaled(scale: torch.Tensor) -> torch.Tensor:
        named = {name: scale * parameter for name, parameter in compressed.named_parameters()}
        return torch.func.functional_call(compressed, named, batch)

    with torch.no_grad():
        stood_in = torch.func.functional_call(compressed, others, batch)
        many = torch.func.vmap(scaled)(torch.tensor([0.5, 1.0]))
    twin = copy.deepcopy(compressed)
    twin.load_state_dict(others, strict=False)
    torch.testing.assert_close(stood_in, asked(twin), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(many, torch.stack([stood_in, before]), atol=1e-5, rtol=1e-5)
    assert torch.equal(asked(compressed), before)


def test_weights_without_a_count_of_writes_are_gathered_in_every_pass() -> None:
    with torch.inference_mode():
        compressed = copy.deepcopy(model())
        before = compressed(*example())
        assert not any(module.kept for module in tied(compressed))
        one_weight(compressed)
        assert not torch.equal(compressed(*example()), before)


# ---------------------------------------------------------------- materialized


@pytest.mark.parametrize(
    "compressed", [model(), model(share=1.0, keep=2.0), tied_whole()], ids=["cut", "tied", "whole"]
)
def test_a_materialized_model_has_plain_maps_and_computes_the_same(compressed: nn.Module) -> None:
    plain = snp.materialize(compressed.train())
    assert not plain.training and not tied(plain) and tied(compressed) and compressed.training
    assert not any(parameter.requires_grad for parameter in plain.parameters())
    assert all(parameter.is_contiguous() for parameter in plain.parameters())
    assert torch.equal(plain(*example()), asked(compressed.eval()))
    before = plain(*example())
    one_weight(compressed)
    assert torch.equal(plain(*example()), before)


def test_what_is_tied_whole_stays_once_in_memory() -> None:
    compressed = tied_whole()
    plain = snp.materialize(compressed)
    stored = [sum(p.numel() for p in one.parameters()) for one in (compressed, plain)]
    assert stored[0] == stored[1]
    assert plain.text.transformer.resblocks[1].mlp.c_fc.weight is plain.vision.blocks[1].mlp.fc1.weight


def test_a_model_that_shares_nothing_is_only_copied() -> None:
    for given in (two_towers(), model(share=0.0)):
        plain = snp.materialize(given)
        torch.testing.assert_close(asked(plain), asked(given.eval()), atol=1e-6, rtol=1e-6)
        assert list(plain.state_dict()) == list(given.state_dict())


def test_a_model_that_cannot_be_copied_is_one_line() -> None:
    compressed = model()
    compressed.lock = (part for part in ())
    with pytest.raises(InputError, match="model: cannot be copied"):
        snp.materialize(compressed)


def test_weights_of_half_precision_are_materialized_as_they_are() -> None:
    plain = snp.materialize(model().bfloat16())
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.bfloat16}


def gathers(program: torch.export.ExportedProgram) -> list[str]:
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    return [name for name in names if "embedding" in name or "index_select" in name]


@pytest.mark.slow
def test_an_exported_graph_is_right_and_gathers_nothing_once_it_is_materialized() -> None:
    compressed = model()
    expected = asked(compressed)  # what is kept by now is no part of the graph
    images = example()[0], example()[1]
    graphs = {one: torch.export.export(one, images) for one in (compressed, snp.materialize(compressed))}
    for program in graphs.values():
        torch.testing.assert_close(program.module()(*images), expected, atol=1e-5, rtol=1e-5)
    tied_graph, plain_graph = graphs.values()
    words = 1  # the embedding of words
    assert len(gathers(tied_graph)) == words + len(tied(compressed)) and len(gathers(plain_graph)) == words
    assert sum(p.numel() for p in tied_graph.parameters()) == sum(p.numel() for p in compressed.parameters())


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated, and used nonetheless
def test_a_traced_graph_reads_the_weights_of_the_model() -> None:
    compressed = model()
    asked(compressed)
    with torch.no_grad():
        traced = torch.jit.trace(compressed, example())
        one_weight(compressed)
        torch.testing.assert_close(traced(*example()), asked(compressed), atol=1e-6, rtol=1e-6)


def test_the_attention_of_a_materialized_model_is_that_of_the_compressed_one() -> None:
    compressed = model()
    sizes = [
        [(m.d_qk, m.d_vo) for m in one.modules() if isinstance(m, Attention)]
        for one in (compressed, snp.materialize(compressed))
    ]
    assert sizes[0] == sizes[1] != []
