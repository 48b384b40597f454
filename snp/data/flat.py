"""Annotations as flat arrays: read from files of any size, kept beside the data, mapped into memory. [ours]"""

import gc
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from snp.data import annotations, tokens
from snp.data.annotations import Entry
from snp.data.checks import Checks
from snp.data.columns import NAMED, NUMBERS, Columns, Where, pairs, text_at
from snp.data.stream import members
from snp.data.tokens import Vocabulary
from snp.errors import InputError
from snp.files import replacing

VERSION = 1
"""Of the arrays; with that of the tokens a part of a cache's name."""


@dataclass(frozen=True)
class Flat:
    """N captions with M boxes, S spans and T tokens in all.

    What belongs to entry i lies in rows at[i] to at[i + 1] of the array that an `_at` array goes with; spans belong to
    boxes in the same way.

    Args:
        id_N, original_N, sentence_N: numbers of an Entry, int64. size_N2: height and width in pixels, int32.
        file_N, dataset_N, type_N, question_type_N, answer_N: rows of the table of names, int32.
        caption_at, caption: utf-8 bytes.
        token_at, token_T: vocabulary ids with start and end, uint16.
        box_at, box_M4: x, y, width and height in pixels, float64. category_M: int64.
        span_at, span_S2: [begin, end) characters of the caption, int32. word_S2: [first, last) tokens, uint16.
        rest_at, rest: what few entries have, the other fields of an Entry as JSON: utf-8 bytes, none where it has none.
        name_at, name: the table of names, utf-8 bytes.
    """

    id_N: np.ndarray
    original_N: np.ndarray
    sentence_N: np.ndarray
    size_N2: np.ndarray
    file_N: np.ndarray
    dataset_N: np.ndarray
    type_N: np.ndarray
    question_type_N: np.ndarray
    answer_N: np.ndarray
    caption_at: np.ndarray
    caption: np.ndarray
    token_at: np.ndarray
    token_T: np.ndarray
    box_at: np.ndarray
    box_M4: np.ndarray
    category_M: np.ndarray
    span_at: np.ndarray
    span_S2: np.ndarray
    word_S2: np.ndarray
    rest_at: np.ndarray
    rest: np.ndarray
    name_at: np.ndarray
    name: np.ndarray

    def __len__(self) -> int:
        return len(self.id_N)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every caption, int64 [N]."""
        return np.diff(self.token_at)

    @property
    def names(self) -> np.ndarray:
        """The table of names: `flat.names[flat.type_N]` are the types of all entries."""
        return np.array([text_at(self.name, self.name_at, k) for k in range(len(self.name_at) - 1)], dtype=str)

    def tokens(self, i: int) -> np.ndarray:
        """Vocabulary ids of entry i, [L]."""
        return self.token_T[self.token_at[i] : self.token_at[i + 1]]

    def boxes(self, i: int) -> np.ndarray:
        """Boxes of entry i, float32 [m, 4]: centre x, centre y, width, height, each a share of its picture's side."""
        corner = self.box_M4[self.box_at[i] : self.box_at[i + 1]].astype(np.float32)
        if len(corner):  # a question alone may not know the size of its picture
            corner /= np.tile(self.size_N2[i, ::-1], 2).astype(np.float32)
        return np.concatenate([corner[:, :2] + corner[:, 2:] / 2, corner[:, 2:]], 1)

    def categories(self, i: int) -> np.ndarray:
        """Category ids of the boxes of entry i, [m]."""
        return self.category_M[self.box_at[i] : self.box_at[i + 1]]

    def positive(self, i: int) -> np.ndarray:
        """Which tokens of entry i belong to the phrase of each of its boxes: bool [m, L]."""
        first, last = self.box_at[i], self.box_at[i + 1]
        place = np.arange(self.token_at[i + 1] - self.token_at[i])
        word = self.word_S2[self.span_at[first] : self.span_at[last]]
        box = np.repeat(np.arange(last - first), np.diff(self.span_at[first : last + 1]))
        found = np.zeros((last - first, len(place)), bool)
        np.logical_or.at(found, box, (place >= word[:, :1]) & (place < word[:, 1:]))
        return found

    def text(self, i: int) -> str:
        """The caption of entry i."""
        return text_at(self.caption, self.caption_at, i)

    def entry(self, i: int) -> Entry:
        """Entry i as `annotations.read` gives it."""
        boxes = slice(self.box_at[i], self.box_at[i + 1])
        spans = self.span_S2[self.span_at[boxes.start] : self.span_at[boxes.stop]].tolist()
        ends = (self.span_at[boxes.start : boxes.stop + 1] - self.span_at[boxes.start]).tolist()
        rest = json.loads(text_at(self.rest, self.rest_at, i) or "{}")
        return Entry(
            **{
                "id": int(self.id_N[i]),
                "height": int(self.size_N2[i, 0]),
                "width": int(self.size_N2[i, 1]),
                "caption": self.text(i),
                "boxes": pairs(self.box_M4[boxes].tolist()),
                "spans": tuple(pairs(spans[first:last]) for first, last in pairwise(ends)),
                "categories": tuple(self.category_M[boxes].tolist()),
                **{
                    field: text_at(self.name, self.name_at, getattr(self, column)[i]) for field, column in NAMED.items()
                },
                **{field: int(getattr(self, column)[i]) for field, column in NUMBERS.items()},
                **rest,
                "evaluated": tuple(map(pairs, rest.get("evaluated", ()))),
                "phrase_types": pairs(rest.get("phrase_types", ())),
            }
        )

    @classmethod
    def from_entries(
        cls, entries: Iterable[Entry], vocabulary: Vocabulary, context: int, where: Where = "entries"
    ) -> "Flat":
        """Entries as arrays.

        Args:
            context: most tokens a caption may have.

        Raises:
            InputError: a caption that is too long, or has no word.
        """
        made = Columns()
        for i, entry in enumerate(entries):
            made.caption(entry)
            categories = entry.categories or (0,) * len(entry.boxes)
            for box, category, spans in zip(entry.boxes, categories, entry.spans, strict=True):
                made.box(i, box, category, spans)
        return Flat(**made.arrays(vocabulary, context, where))

    @classmethod
    def read(cls, path: str | Path, vocabulary: Vocabulary, context: int, boxless: bool = False) -> "Flat":
        """The entries of an annotation file; neither its text nor its objects are ever in memory as a whole.

        Raises:
            InputError: what `annotations.read` raises; a caption that is too long, or has no word.
        """
        made, checks = Columns(), Checks(path)
        waiting = ["images", "annotations"]
        collecting = gc.isenabled()
        gc.disable()  # as in annotations.read: much is made, and none of it garbage
        try:
            while waiting:
                before = len(waiting)
                for name, values in members(path, ("images", "annotations")):
                    if name in waiting[:1]:  # annotations that stand before the images wait for a second reading
                        made.take(path, name, values, checks)
                        waiting.pop(0)
                if len(waiting) == before:
                    annotations.listed(path, {}, waiting[0])
        finally:
            if collecting:
                gc.enable()
        for error in () if boxless else checks.without_boxes():
            raise error
        del checks  # it knows all captions by their numbers
        return Flat(**made.arrays(vocabulary, context, f"{path}: images"))

    @classmethod
    def cached(cls, root: Path, name: str, vocabulary: Vocabulary, context: int, boxless: bool = False) -> "Flat":
        """`read` of root/annotations/<name>.json, kept in root/cache for as long as the file is not changed.

        A cache that is damaged is made again; where none can be kept, as in a folder that is read-only, none is.
        """
        path = root / "annotations" / f"{name}.json"
        read = lambda: cls.read(path, vocabulary, context, boxless)  # noqa: E731
        return cls.kept(root / "cache" / name, [path], read, vocabulary, context, boxless)

    @classmethod
    def kept(
        cls,
        store: Path,
        sources: Sequence[Path],
        make: Callable[[], "Flat"],
        vocabulary: Vocabulary,
        context: int,
        boxless: bool = False,
    ) -> "Flat":
        """What `make` makes of these files, kept beside `store` for as long as none of them is changed; as `cached`.

        Args:
            store: the folder, and the beginning of the name, of the cache.
            vocabulary, context, boxless: that it is made with.
        """
        if missing := [path for path in sources if not path.exists()]:
            raise InputError(missing[0], "file not found")
        stats = (number for path in sources for number in (path.stat().st_size, path.stat().st_mtime_ns))
        made_of = VERSION, tokens.VERSION, *stats, context, boxless
        key = hashlib.sha256(str(made_of).encode())
        key.update(np.array(vocabulary.clip_ids, np.int64).tobytes())
        path = store.with_name(f"{store.name}-{key.hexdigest()[:12]}.safetensors")
        if path.exists():
            try:
                return cls.load(path)
            except InputError:
                pass
        flat = make()
        with suppress(OSError):
            flat.save(path)
        return flat

    def save(self, path: str | Path) -> None:
        """Write the arrays as one safetensors file, atomically."""
        with replacing(path) as temporary:
            save_file({f.name: torch.from_numpy(getattr(self, f.name)) for f in fields(self)}, temporary)

    @classmethod
    def load(cls, path: str | Path) -> "Flat":
        """Arrays mapped into memory: what is not looked at is not read.

        Raises:
            InputError: no whole file of this kind; arrays that do not go together.
        """
        hint = "delete it, to have it made again"
        try:
            with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
                arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
            flat = cls(**arrays)
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise InputError(path, f"holds no annotations as arrays: {error}", hint) from None
        for name in flat._unfit():
            raise InputError(f"{path}: {name}", "does not go with the other arrays", hint)
        return flat

    def _unfit(self) -> Iterator[str]:
        """Names of arrays that do not go with the others."""
        empty = _empty()
        for f in fields(self):
            array, kind = getattr(self, f.name), getattr(empty, f.name)
            if array.dtype != kind.dtype or array.shape[1:] != kind.shape[1:] or array.ndim != kind.ndim:
                yield f.name
                return
        sizes = {"N": len(self.id_N), "M": len(self.box_M4), "S": len(self.span_S2)}
        for f in fields(self):
            rows = sizes.get(f.name.rpartition("_")[2][0])
            if rows not in (None, len(getattr(self, f.name))):
                yield f.name
        for name, (owners, values) in _AT.items():
            at, end = getattr(self, name), len(getattr(self, values))
            if (
                not len(at)
                or len(at) != sizes.get(owners, len(at) - 1) + 1
                or at[0] != 0
                or at[-1] != end
                or (np.diff(at) < 0).any()
            ):
                yield name
        for column in NAMED.values():
            row = getattr(self, column)
            if len(row) and not 0 <= row.min() <= row.max() < len(self.name_at) - 1:
                yield column


_AT = {
    "caption_at": ("N", "caption"),
    "token_at": ("N", "token_T"),
    "rest_at": ("N", "rest"),
    "box_at": ("N", "box_M4"),
    "span_at": ("M", "span_S2"),
    "name_at": ("", "name"),
}
"""Offsets -> whose they are, and the array that they cut."""


@cache
def _empty() -> Flat:
    """What arrays are like."""
    return Flat(**Columns().arrays(Vocabulary([]), 2, ""))
