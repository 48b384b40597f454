"""What flows into linear maps: energies worked by hand, padding of the tokens that a map sees, and layouts."""

import pytest
import torch
from nets import GROUPS, Net, batches
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from snp.compression.statistics import input_energy
from snp.data.batch import Batch
from snp.errors import InputError
from snp.models.config import GLIP_SMOKE, SMOKE
from snp.models.glip import GLIP
from snp.models.mdetr import MDETR


def energy(model, batches, groups=GROUPS, **more):
    return input_energy(model, groups, batches, lambda batch: model(batch), **more)


def test_streamed_energy_is_that_of_all_samples_at_once_whatever_the_batches():
    """As batches of 1, 3 and 8 samples, as one of 12."""
    net, (image, words) = Net(0), batches(5, 1, 12)[0]
    parts = [(image[a:b], words[a:b]) for a, b in ((0, 1), (1, 4), (4, 12))]
    whole = energy(net, [(image, words)])
    for name, value in energy(net, parts).items():
        torch.testing.assert_close(value, whole[name])
    torch.testing.assert_close(whole["v1.weight"], image.flatten(0, 1).square().sum(0) / 12)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_energy_of_any_precision_is_summed_in_float32_or_wider(kind):
    """60,000 tokens of 3 have an energy of 540,000, which float16 cannot hold."""
    net = nn.Linear(2, 1).to(kind)
    found = energy(net, [torch.full((1, 60_000, 2), 3.0, dtype=kind)], {"all": ["weight"]})["weight"]
    assert found.tolist() == pytest.approx([540_000, 540_000])
    assert found.dtype == (torch.float64 if kind == torch.float64 else torch.float32)


# -- padding -----------------------------------------------------------------------------------------------------

TEXT = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False], [True] + [False] * 4])


def test_padding_does_not_count():
    net, (image, words) = Net(0), batches(5, 1)[0]
    for mask in (TEXT, TEXT.long()):  # as tokenizers give it
        masked = energy(net, [(image, words)], token_masks={"text": lambda batch, mask=mask: mask})
        torch.testing.assert_close(masked["t1.weight"], words[TEXT].square().sum(0) / 4)
        assert torch.equal(masked["v1.weight"], energy(net, [(image, words)])["v1.weight"])


def test_the_most_specific_mask_holds_a_name_before_patterns_before_the_group():
    net, (image, words) = Net(0), batches(5, 1)[0]
    none, first = torch.ones_like(TEXT), torch.zeros_like(TEXT)
    first[:, 0] = True
    masks = {"text": TEXT, "t*": None, "t?.weight": first, "t2.weight": none}
    found = energy(net, [(image, words)], token_masks={key: lambda batch, mask=m: mask for key, m in masks.items()})
    torch.testing.assert_close(found["t1.weight"], words[:, 0].square().sum(0) / 4)  # the longer of two patterns
    assert torch.equal(found["t2.weight"], energy(net, [(image, words)])["t2.weight"])


class Across(nn.Module):
    """Words look at places of an image; the keys see places, and belong to the text's group as all else here."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.query(batch[1]) @ self.key(batch[0]).transpose(1, 2)


def test_the_mask_of_words_is_never_that_of_as_many_places():
    """Image and text are of equal length: by its length alone the mask of the text would fit the image."""
    torch.manual_seed(0)
    image, words = torch.randn(4, 5, 4), torch.randn(4, 5, 4)
    groups = {"text": ["query.weight", "key.weight"]}
    masks = {"text": lambda batch: TEXT, "key.*": lambda batch: None}
    found = energy(Across(), [(image, words)], groups, token_masks=masks)
    torch.testing.assert_close(found["query.weight"], words[TEXT].square().sum(0) / 4)
    torch.testing.assert_close(found["key.weight"], image.flatten(0, 1).square().sum(0) / 4)


@pytest.mark.parametrize(
    "masks, problem",
    [
        ({"text": TEXT}, r"key\.weight: has a token mask of \[4, 5\] but sees tokens \[4, 7\]"),
        ({"key.weight": TEXT}, r"key\.weight: has a token mask of \[4, 5\] but sees tokens \[4, 7\]"),
        ({"texts": TEXT}, "token_masks: texts: is neither a group nor the name or pattern of a weight"),
        ({"query.*": [TEXT, TEXT[:2]], "key.*": []}, r"key\.weight: is called more than 0 times in a pass"),
    ],
)
def test_a_mask_that_does_not_fit_is_an_error_that_names_the_weight(masks, problem):
    batch = (torch.randn(4, 7, 4), torch.randn(4, 5, 4))
    with pytest.raises(InputError, match=problem):
        energy(
            Across(),
            [batch],
            {"text": ["query.weight", "key.weight"]},
            token_masks={key: lambda batch, mask=mask: mask for key, mask in masks.items()},
        )


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(self.map(x))


def test_a_map_that_is_called_twice_sums_its_calls_and_counts_its_samples_once():
    net, x = Twice(), torch.randn(4, 3)
    found = energy(net, [x, x], {"all": ["map.weight"]})["map.weight"]
    expected = (x.square().sum(0) + net.map(x).square().sum(0)) / 4
    torch.testing.assert_close(found, expected.detach())
    official = energy(net, [x, x], {"all": ["map.weight"]}, official=True)["map.weight"]
    torch.testing.assert_close(official, expected.detach() / 2)


def test_every_call_of_a_map_has_its_own_mask():
    """Captions and regions pass one after the other, as many samples of another length, padded in another way."""
    torch.manual_seed(0)
    net, both = nn.Linear(3, 2), (torch.randn(4, 5, 3), torch.randn(4, 2, 3))
    masks = [TEXT, None]
    for official in (False, True):
        found = input_energy(
            net,
            {"text": ["weight"]},
            [both],
            lambda both: [net(x) for x in both],
            {"text": lambda both: masks},
            official,
        )["weight"]
        square = torch.cat([both[0][TEXT], both[1].flatten(0, 1)]).square().sum(0)
        torch.testing.assert_close(found, square / (8 if official else 4))


# -- layouts -----------------------------------------------------------------------------------------------------


def test_the_maps_inside_torchs_attention_are_seen_and_the_module_is_left_as_it_was():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x, attention = torch.randn(2, 5, 8), layer.self_attn
    names = ["self_attn.in_proj_weight", "self_attn.out_proj.weight"]
    found = energy(layer, [x], {"all": names})
    assert layer.self_attn is attention
    torch.testing.assert_close(found[names[0]], x.flatten(0, 1).square().sum(0) / 2)
    q, k, v = (
        part.view(2, 5, 2, 4).transpose(1, 2)
        for part in nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
    )
    inner = ((q @ k.transpose(-2, -1) / 2).softmax(-1) @ v).transpose(1, 2).reshape(10, 8)
    torch.testing.assert_close(found[names[1]], inner.square().sum(0).detach() / 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda first: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=first),
        lambda first: ResidualAttentionBlock(8, 2, batch_first=first),
    ],
)
def test_layers_that_see_tokens_before_samples_give_what_those_that_see_samples_first_give(make):
    """As many tokens as samples, so that no shape tells which is which; two batches of unlike size of them."""
    torch.manual_seed(0)
    first, last = nn.Sequential(make(True)).eval(), nn.Sequential(make(False)).eval()
    last.load_state_dict(first.state_dict())
    groups = {"text": [name for name, p in first.named_parameters() if p.dim() == 2]}
    data = [torch.randn(4, 4, 8), torch.randn(2, 4, 8)]
    real = {len(x): torch.rand(x.shape[:2]) < 0.6 for x in data}
    expected = energy(first, data, groups, token_masks={"text": lambda x: real[len(x)]})
    found = energy(last, [x.transpose(0, 1) for x in data], groups, token_masks={"text": lambda x: real[x.shape[1]]})
    assert len(groups["text"]) == 4
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


# -- the grounding models ----------------------------------------------------------------------------------------


SIZES = {"image_size": 16, "width": 32, "depth": 2, "heads": 4}
MDETR_TINY = SMOKE.model_copy(update=SIZES | {"proposals": False, "queries": 8})
GLIP_TINY = GLIP_SMOKE.model_copy(update=SIZES | {"scales": (1,)})
LENGTHS = (4, 2, 4, 3)


def captions(*which: int) -> Batch:
    """Captions of 4, 2, 4 and 3 words, the first and third the same, each of its own image; padded to the longest."""
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 16, 16), generator=source, dtype=torch.uint8)
    words = torch.randint(1, 100, (4, 4), generator=source)
    words[2] = words[0]
    text = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    longest, chosen = max(LENGTHS[i] for i in which), list(which)
    boxes = torch.zeros(len(which), 1, 4)
    return Batch(
        images[chosen],
        torch.arange(len(which)),
        (words * text)[chosen, :longest],
        text[chosen, :longest],
        boxes,
        boxes[..., 0] > 0,
        boxes[..., :longest] > 0,
        boxes[..., 0].long(),
    )


@pytest.mark.parametrize("model, prompts", [(MDETR(MDETR_TINY), (0, 1, 2, 3)), (GLIP(GLIP_TINY), (0, 1, 3))])
def test_a_batch_with_padding_gives_what_its_captions_give_one_by_one(model, prompts):
    """Four image tokens, as many as words; eight queries, as many as both together: no length tells which is which.

    Every map of towers and fusion. GLIP's text tower reads a prompt once that several images share.
    """
    assert model.config.image_tokens == captions(0).text_BL.shape[1] == 4
    parts = ("vision.blocks.", "text.transformer.", "encoder.", "decoder.", "fuse.", "read.")
    groups = {part: [n for n, p in model.named_parameters() if p.dim() == 2 and n.startswith(part)] for part in parts}
    assert {name for part in parts[2:] for name in groups[part]} >= set(model.fusion_weights())

    def found(batches, **more):
        return input_energy(model, groups, batches, lambda batch: model(*batch.inputs), **more)

    together = found([captions(0, 1, 2, 3)], token_masks=model.token_masks())
    alone, read = found(captions(i) for i in range(4)), found(captions(i) for i in prompts)
    expected = alone | {name: read[name] for name in groups["text.transformer."]}
    for name, value in together.items():
        torch.testing.assert_close(value, expected[name], msg=lambda message, name=name: f"{name}: {message}")
    without = found([captions(0, 1, 2, 3)])
    padded = {name for name, value in together.items() if not torch.allclose(value, without[name])}
    assert not any(name.startswith("vision.") for name in padded) and padded > set(groups["text.transformer."])
