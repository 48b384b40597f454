"""The pair-to-sequence model: an expression becomes a caption without a target, which a picture has a say in."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from snp.asking.beam import State, beam
from snp.asking.pairs import Pair
from snp.data.annotations import Entry

PAD, BEGIN, END = range(3)
EMBEDDING, WIDTH, DROPOUT = 64, 96, 0.2
BATCH, RATE, BEAM = 32, 1e-3, 5
EPOCHS, PATIENCE = 100, 8
"""At most so many, and so many without a lower loss of the held-out pairs, a tenth of them. [ours]"""
LOOKED = 128
"""Pictures that are looked at, and captions that are made, at once."""


class Scene(NamedTuple):
    """What is seen of B pictures: a state for each of N places, [B, N, D], and which lie on what is meant, [B, N]."""

    place_BND: Tensor
    target_BN: Tensor


Look = Callable[[Sequence[Entry]], Scene]
"""Looks at the pictures of expressions, for the first box of each."""


@dataclass(frozen=True)
class Words:
    """The words that captions are made of, numbered from 3 on."""

    known: tuple[str, ...]

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Words":
        """All that occur."""
        return cls(tuple(sorted({word for caption in captions for word in caption.split()})))

    def __len__(self) -> int:
        return END + 1 + len(self.known)

    def encode(self, captions: Iterable[str]) -> Tensor:
        """Numbers [B, L], of each caption with END behind it; all its words are known."""
        number = {word: place for place, word in enumerate(self.known, END + 1)}
        rows = [torch.tensor([*(number[word] for word in caption.split()), END]) for caption in captions]
        return pad_sequence(rows, batch_first=True, padding_value=PAD)

    def decode(self, ids: Sequence[int]) -> str:
        """The caption up to its END."""
        stop = ids.index(END) if END in ids else len(ids)
        return " ".join(self.known[i - END - 1] for i in ids[:stop])


class Read(NamedTuple):
    """B expressions of L words as they are read: numbers, which are words, a state for each, and for each place."""

    ids_BL: Tensor
    word_BL: Tensor
    word_BLH: Tensor
    place_BNH: Tensor | None

    def each(self, times: int) -> "Read":
        """Every expression so many times, one after the other."""
        ids_RL, word_RL, word_RLH = (part.repeat_interleave(times, 0) for part in self[:3])
        places = None if self.place_BNH is None else self.place_BNH.repeat_interleave(times, 0)
        return Read(ids_RL, word_RL, word_RLH, places)


class Asker(nn.Module):
    """Pair2Seq (Zhu et al. 2019): reads an expression beside what is seen, and writes another.  [paper: the kind]

    Words pass an LSTM in both directions; places have no order to be read in, and pass a linear map. [ours] Each side
    attends to the other; the decoder, an LSTM, attends to both, and takes a word from the vocabulary or from the
    expression. The paper's code is not public: what its abstract does not tell is [ours].

    Args:
        words: numbers that there are.
        channels: of what is seen; None: it sees nothing, and reads words alone (seq2seq, the paper's baseline).
    """

    def __init__(self, words: int, channels: int | None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, EMBEDDING, padding_idx=PAD)
        self.reader = nn.LSTM(EMBEDDING, WIDTH // 2, batch_first=True, bidirectional=True)
        self.writer = nn.LSTM(EMBEDDING, WIDTH, batch_first=True)
        self.drop = nn.Dropout(DROPOUT)
        sides = 1 if channels is None else 2
        if channels is not None:
            self.meant = nn.Embedding(2, channels)  # whether a place is
            self.place = nn.Linear(channels, WIDTH)
            self.merge_words, self.merge_places = (nn.Linear(2 * WIDTH, WIDTH) for _ in range(2))
        self.attended = nn.Linear((1 + sides) * WIDTH, WIDTH)
        self.vocabulary = nn.Linear(WIDTH, words - END)
        self.gate = nn.Linear(WIDTH, 1)

    def forward(self, ids_BL: Tensor, scene: Scene | None, wanted_BT: Tensor) -> Tensor:
        """Mean negative log-likelihood of the words that are wanted, each after those before it."""
        read = self.read(ids_BL, scene)
        before_BT = F.pad(wanted_BT[:, :-1], (1, 0), value=BEGIN)
        states_BTH, _ = self.writer(self.drop(self.embedding(before_BT)), self.begin(read))
        chance_BT = self.say(states_BTH, read).gather(2, wanted_BT[..., None]).squeeze(2)
        return -chance_BT[wanted_BT != PAD].clamp(min=1e-12).log().mean()

    def read(self, ids_BL: Tensor, scene: Scene | None) -> Read:
        """Expressions, and what is seen, each in the light of the other."""
        word_BL = ids_BL != PAD
        packed = pack_padded_sequence(
            self.drop(self.embedding(ids_BL)), word_BL.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        word_BLH, _ = pad_packed_sequence(self.reader(packed)[0], batch_first=True, total_length=ids_BL.shape[1])
        if scene is None:
            return Read(ids_BL, word_BL, word_BLH, None)
        place_BNH = self.drop(self.place(scene.place_BND + self.meant(scene.target_BN.long())))
        score_BLN = word_BLH @ place_BNH.transpose(1, 2)
        of_places_BNL = score_BLN.masked_fill(~word_BL[..., None], -torch.inf).softmax(1).transpose(1, 2)
        words = torch.cat([word_BLH, score_BLN.softmax(2) @ place_BNH], 2)
        places = torch.cat([place_BNH, of_places_BNL @ word_BLH], 2)
        return Read(ids_BL, word_BL, self.merge_words(words).tanh(), self.merge_places(places).tanh())

    def begin(self, read: Read) -> State:
        """What the decoder begins with, [1, B, WIDTH] each: the mean word."""
        mean_BH = (read.word_BLH * read.word_BL[..., None]).sum(1) / read.word_BL.sum(1, keepdim=True)
        return mean_BH[None], torch.zeros_like(mean_BH)[None]

    def say(self, state_BTH: Tensor, read: Read) -> Tensor:
        """Probabilities of the next word, [B, T, words]: g times the vocabulary's, and 1 - g times the expression's."""
        score_BTL = state_BTH @ read.word_BLH.transpose(1, 2)
        copied_BTL = score_BTL.masked_fill(~read.word_BL[:, None], -torch.inf).softmax(2)
        seen = [state_BTH, copied_BTL @ read.word_BLH]
        if read.place_BNH is not None:
            seen.append((state_BTH @ read.place_BNH.transpose(1, 2)).softmax(2) @ read.place_BNH)
        x_BTH = self.drop(self.attended(torch.cat(seen, 2)).tanh())
        own_BTV = F.pad(self.vocabulary(x_BTH).softmax(2), (END, 0))  # nobody says PAD or BEGIN
        ids_BTL = read.ids_BL[:, None].expand_as(copied_BTL)
        expression_BTV = torch.zeros_like(own_BTV).scatter_add(2, ids_BTL, copied_BTL)
        gate_BT1 = self.gate(x_BTH).sigmoid()
        return gate_BT1 * own_BTV + (1 - gate_BT1) * expression_BTV

    @torch.no_grad()
    def write(self, ids_BL: Tensor, scene: Scene | None, most: int, width: int = BEAM) -> list[list[int]]:
        """The likeliest captions of at most so many words, END among them, by beam search."""
        read = self.read(ids_BL, scene)
        each = read.each(width)

        def step(last_R: Tensor, state: State) -> tuple[Tensor, State]:
            hidden, cell = (tensor[None] for tensor in state)
            state_R1H, (hidden, cell) = self.writer(self.embedding(last_R)[:, None], (hidden, cell))
            return self.say(state_R1H, each)[:, 0].log(), (hidden[0], cell[0])

        hidden, cell = self.begin(read)
        return beam(step, (hidden[0], cell[0]), BEGIN, END, width, most).tolist()


def learn(pairs: Sequence[Pair], words: Words, look: Look | None, seed: int) -> Asker:
    """A model that has learned from pairs; without a `look` it sees nothing. Equal seeds give equal weights."""
    source_PL = words.encode(pair.source.caption for pair in pairs)
    wanted_PT = words.encode(pair.caption for pair in pairs)
    scene = None if look is None else _seen([pair.source for pair in pairs], look)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Asker(len(words), None if scene is None else scene.place_BND.shape[2])
        optimizer = torch.optim.Adam(model.parameters(), RATE)

        def loss(rows: Tensor) -> Tensor:
            seen = None if scene is None else Scene(*(part[rows] for part in scene))
            return model(source_PL[rows], seen, wanted_PT[rows])

        held, learned = torch.randperm(len(pairs)).split([len(pairs) // 10, len(pairs) - len(pairs) // 10])
        judged = held if len(held) else learned
        lowest, kept, waited = torch.inf, deepcopy(model.state_dict()), 0
        for _ in range(EPOCHS):
            model.train()
            for rows in learned[torch.randperm(len(learned))].split(BATCH):
                optimizer.zero_grad()
                loss(rows).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                now = float(loss(judged))
            waited = 0 if now < lowest else waited + 1
            if now < lowest:
                lowest, kept = now, deepcopy(model.state_dict())
            elif waited == PATIENCE:
                break
        model.load_state_dict(kept)
    return model


def ask(model: Asker, words: Words, look: Look | None, sources: Sequence[Entry], most: int) -> Iterator[str]:
    """What a model makes of expressions, one after the other: captions of at most so many words."""
    for part in _parts(sources):
        ids_BL = words.encode(entry.caption for entry in part)
        yield from map(words.decode, model.write(ids_BL, None if look is None else look(part), most + 1))


def _seen(entries: Sequence[Entry], look: Look) -> Scene:
    return Scene(*map(torch.cat, zip(*map(look, _parts(entries)), strict=True)))


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    return (entries[start : start + LOOKED] for start in range(0, len(entries), LOOKED))
