"""Drawn pictures: what is known of each, and the numbers by which the files of tasks name them."""

from dataclasses import dataclass

from snp.data.drawn.items import Expression, Item
from snp.data.drawn.questions import Question
from snp.errors import InputError

SPLITS = ("train", "pretrain-val", "val", "testA", "testB", "test")
ROOM = 1_000_000
"""Numbers of a split: picture 12 of the third split is number 2000012."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture as annotated: items, captions, and expressions by benchmark.

    Args:
        size: height and width in pixels.
        caption, single: a caption of several phrases and one expression, in the splits of pre-training.
        pixels: sha256 of the pixels.
        questions: for GQA. sentences: captions of several phrases, for Flickr30k Entities.
    """

    file_name: str
    size: tuple[int, int]
    items: list[Item]
    caption: Expression | None
    single: Expression | None
    expressions: dict[str, list[Expression]]
    pixels: str
    questions: tuple[Question, ...] = ()
    sentences: tuple[Expression, ...] = ()


def identity(split: str, number: int) -> int:
    """The number of a picture that is unique over all splits."""
    return SPLITS.index(split) * ROOM + number


def file_name(identity: str) -> str:
    """The picture of this number (digits), relative to the folder of images.

    Raises:
        InputError: it is no number of a picture.
    """
    split, number = divmod(int(identity), ROOM) if identity.isdecimal() else (len(SPLITS), 0)
    if split >= len(SPLITS):
        raise InputError(f"picture {identity!r}", "is no number of a drawn picture", "make the data set again")
    return f"{SPLITS[split]}/{number:06d}.png"
