"""Commands that ask models: demo, predictions."""

from typing import Annotated, Literal

import tyro
from pydantic import NonNegativeInt
from tyro.conf import Positional

from snp.cli.options import OfResults, Results, app, new_file
from snp.experiment.labels import find
from snp.flags import Named


@app.command
def demo(
    picture: Annotated[
        Named, tyro.conf.arg(help="any picture file; in a checkout results/figures/scenes.png"), Positional
    ],
    text: Annotated[str, tyro.conf.arg(help="a phrase or a question; GLIP: class names, as 'dog. cup'"), Positional],
    checkpoint: Annotated[
        tuple[Named, ...],
        tyro.conf.arg(help="folders of models; default: the committed ones of scenes, dense and by SNP"),
    ] = (),
    png: Annotated[Named | None, tyro.conf.arg(help="file to write; default: demo.png")] = None,
) -> None:
    """Draw what trained models find in a picture for a sentence, side by side, and print it."""
    from snp.data.pixels import load
    from snp.demo.page import Panel, draw
    from snp.demo.predict import Checkpoint, predict
    from snp.training.export import COMMITTED, models

    load(picture)
    png = png or new_file("demo.png")
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # in whatever locale it was typed
    row, kept = find(COMMITTED[0], "desk"), models()
    folders = checkpoint or (kept.folder(row.pretrain), kept.folder(row.compress(0)))
    checkpoints = [Checkpoint.from_folder(folder) for folder in folders]
    found = [(one, predict(one, picture, text)) for one in checkpoints]
    for one, said in found:
        best = [f"{seen.words} {seen.score:.2f} at {tuple(round(v, 2) for v in seen.box)}" for seen in said.seen]
        answer = f"; answer: {said.answer}" if said.answer else ""
        print(f"{one.title}: {'; '.join(best) or said.absent or 'nothing'}{answer}")
        if "?" in text and not one.answers:
            print(f"{one.title}: answers no questions, as it was not fine-tuned on them; it only points at things")
    print(draw([Panel(one.title, picture, text, said) for one, said in found], png))


@app.command
def predictions(
    png: Annotated[Named | None, tyro.conf.arg(help="file to write; default: predictions.png")] = None,
    number: Annotated[NonNegativeInt, tyro.conf.arg(help="which sample of each benchmark")] = 0,
    data: Annotated[Literal["scenes", "stamps", "real"], tyro.conf.arg(help="whose samples")] = "scenes",
    asked: OfResults = Results(),
) -> None:
    """Draw samples as the dense and as the compressed model see them, beside what is right.

    By the committed models before fine-tuning; with --out one sample of every task, by the models that learned it.
    """
    from snp.demo.page import page
    from snp.training.export import models

    scale, store = asked.found
    if asked.out is None and scale == "desk":
        store = models()
    print(page(store, scale, data, png or new_file("predictions.png"), number, tuned=store.root != models().root))
