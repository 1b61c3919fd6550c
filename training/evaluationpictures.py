"""Pictures of an evaluation, from what was kept of each model's first seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training import pictures
from training.cells import HEADLINE, Drawn, Record, TrialCell

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """A cell with what its pictures are drawn from."""

    cell: TrialCell
    record: Record
    drawn: Drawn


def of_model(shown: Shown) -> dict[str, Figure]:
    """Pictures of one model by name: those that it has the makings of."""
    record, drawn = shown.record, shown.drawn
    made: dict[str, Figure] = {}
    found = record["all"]["thresholds"].get(HEADLINE)
    if found is not None:
        threshold = found["threshold"]
        made["scores"] = pictures.score_histogram(
            drawn.score, drawn.attack, threshold, unit="the model's own"
        )
        made["confusion"] = pictures.confusion(drawn.attack, drawn.score > threshold)
    if record["history"]:
        train, held_out = (
            [epoch[name] for epoch in record["history"]] for name in ("train", "validation")
        )
        made["losses"] = pictures.losses(train, held_out, unit="of a flow")
    if len(drawn.latent):
        made["latent"] = pictures.latent_map(drawn.latent, drawn.latent_category)
    return made


def of_place(shown: Sequence[Shown]) -> dict[str, Figure]:
    """Curves of all models of one trial and set of features, by name."""
    models = {each.cell.model: (each.drawn.attack, each.drawn.score) for each in shown}
    return {
        "roc": pictures.roc_curves(models),
        "precision-recall": pictures.precision_recall_curves(models),
    }


def draw(shown: Sequence[Shown], detailed: Sequence[str], folder: Path) -> dict[str, list[str]]:
    """Write all pictures.

    Args:
        shown: first seeds without hidden attacks.
        detailed: models that have pictures of their own.
        folder: made if it is not there.

    Returns:
        For each trial and features, ``"trial/features"``, the files' names.

    Raises:
        MissingExtraError: there is no matplotlib.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places: dict[str, list[Shown]] = {}
    for each in shown:
        places.setdefault(f"{each.cell.trial}/{each.cell.features}", []).append(each)
    written: dict[str, list[str]] = {}
    for place, here in places.items():
        figures: dict[str, Figure] = dict(of_place(here))
        for each in here:
            if each.cell.model in detailed:
                own = of_model(each)
                figures |= {f"{each.cell.model}-{name}": figure for name, figure in own.items()}
        written[place] = _write(figures, place.replace("/", "-"), folder)
    return written


def _write(figures: Mapping[str, Figure], prefix: str, folder: Path) -> list[str]:
    names = []
    for name, figure in figures.items():
        file = f"{prefix}-{name}.png"
        pictures.save(figure, folder / file)
        names.append(file)
    return names


def links(written: Mapping[str, Sequence[str]], folder: str) -> str:
    """Markdown that shows the pictures, which lie in `folder` beside the page."""
    if not written:
        return ""
    text = ["\n## Pictures\n\nOf the first seed of each model.\n"]
    for place, names in written.items():
        text.append(f"\n### {place}\n\n")
        text += [f"![{name.removesuffix('.png')}]({folder}/{name})\n" for name in names]
    return "".join(text)
