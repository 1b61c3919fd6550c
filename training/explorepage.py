"""The page of `flowvane explore`: what :mod:`training.explore` finds, as text, tables, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from features.schema import Kind
from training import pictures
from training.baselines import TREES
from training.datasets.base import DataSet, Table
from training.explore import (
    CATEGORY_ROWS,
    FEW,
    MOST_ROWS,
    NORMAL,
    Faults,
    Likeness,
    Profile,
    Profiles,
    by_distance,
    counts,
    faults,
    importances,
    likeness,
    per_category,
    sample,
    spearman,
)
from training.page import Html, Page, heading, listing, picture, table, text

PANELS = 16
"""Distributions in one picture."""
SECTIONS = 6
"""How often `tell` is called."""
MANY = 12
"""Of more names than that a sentence gives the number only."""

NO_ATTACKS = "There are no attacks in these rows, so nothing to set against the benign ones."
NO_BENIGN = "There are no benign rows here, so nothing to set the attacks against."


def render(
    data_set: DataSet, part: str, rows: Table, seed: int, tell: Callable[[float], None]
) -> str:
    """The page about one part of a data set.

    Args:
        data_set, part, rows: what was loaded.
        seed: of every sample and of the forest.
        tell: called with 1 after each section, :data:`SECTIONS` times.
    """
    page = Page(
        f"{data_set.name}: {part}",
        f"{data_set.title}. {len(rows.rows):,} rows of {len(rows.schema.features)} features, "
        f"{int(rows.attack.sum()):,} of them attacks. "
        f"Made by: flowvane explore --dataset {data_set.name} --part {part} --seed {seed}",
    )
    drawn = sample(rows, MOST_ROWS, seed)
    lacking = "" if rows.attack.any() else NO_ATTACKS
    lacking = lacking if not rows.attack.all() else NO_BENIGN
    page.add("classes", "Classes", *_classes(rows))
    tell(1)
    page.add("cleaning", "Cleaning log", *_cleaning(rows, faults(rows)))
    tell(1)
    page.add("distributions", "Distributions", *_distributions(drawn, len(rows.rows)))
    tell(1)
    page.add("correlations", "Correlations", *_correlations(rows, drawn, lacking, seed))
    tell(1)
    blocks = text(lacking) if lacking else Html("".join(_profiles(rows)))
    page.add("profiles", "Profiles of the categories", blocks)
    tell(1)
    blocks = text(lacking) if lacking else Html("".join(_importances(rows, seed)))
    page.add("importances", "Importances", blocks)
    tell(1)
    return page.render()


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _plural(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _classes(rows: Table) -> Iterator[Html]:
    number = counts(rows)
    total = len(rows.rows)
    largest = ", ".join(f"{name} {_percent(n / total)}" for name, n in list(number.items())[:3])
    yield picture(
        pictures.encode(pictures.class_pie(number)),
        alt=f"Ring of the shares of {len(number)} categories; the largest: {largest}.",
        caption="Shares of the categories. The table has every one.",
    )
    yield table(
        "Rows of each category",
        ("category", "rows", "share"),
        [(name, n, _percent(n / total)) for name, n in number.items()],
    )


def _cleaning(rows: Table, found: Faults) -> Iterator[Html]:
    yield table(
        "Files that were read",
        ("file", "rows", "SHA-256"),
        [(file.name, file.rows, file.sha256) for file in rows.files],
    )
    yield heading("What the loader changed or dropped")
    yield listing(rows.notes or ("Nothing: every row and every cell is as published.",))
    yield heading("What is odd, and was left as it is")
    total = max(len(rows.rows), 1)
    yield listing(
        (
            f"{_plural(found.repeated, 'row equals', 'rows equal')} an earlier one in every "
            f"feature and in the category ({_percent(found.repeated / total)}).",
            f"{_plural(found.contradicting, 'row has', 'rows have')} features that occur both "
            f"as benign and as an attack ({_percent(found.contradicting / total)}).",
            "Features with the same value in every row: " + (", ".join(found.constant) or "none."),
            "Pairs of features that are equal in every row: "
            + ("; ".join(f"{a} = {b}" for a, b in found.twins) or "none."),
            "Terms outside the vocabulary: "
            + (", ".join(f"{name} ({n:,} rows)" for name, n in found.unknown.items()) or "none."),
            "Negative amounts: "
            + (", ".join(f"{name} ({n:,} rows)" for name, n in found.negative.items()) or "none."),
        )
    )


def _of(drawn: Table, total: int) -> str:
    number = len(drawn.rows)
    return (
        f"all {total:,} rows" if number == total else f"a random sample of {number:,} of {total:,}"
    )


def _distributions(drawn: Table, total: int) -> Iterator[Html]:
    yield text(
        "Each panel shows how often a value occurs among benign rows (blue, solid) and among "
        "attacks (vermilion, dashed or hatched), as a share of the class. Shares of amounts are "
        "on a logarithmic scale from 0.01 %, and amounts on a signed logarithmic one, log(1 + x), "
        "as models take them in. Features that set attacks furthest apart come first. Of "
        f"{_of(drawn, total)}.",
    )
    ordered = by_distance(drawn)
    for start in range(0, len(ordered), PANELS):
        shown = ordered[start : start + PANELS]
        features = [feature for feature, _ in shown]
        columns = drawn.schema.index([feature.name for feature in features])
        figure = pictures.distributions(features, drawn.rows[:, columns], drawn.attack)
        told = ", ".join(f"{feature.name} {apart:.2f}" for feature, apart in shown)
        yield picture(
            pictures.encode(figure),
            alt="Histograms of benign rows and attacks. How far apart the two are, from 0 to 1: "
            f"{told}.",
            caption=f"Features {start + 1} to {start + len(shown)} of {len(ordered)}.",
        )


def _correlations(rows: Table, drawn: Table, lacking: str, seed: int) -> Iterator[Html]:
    features = [f for f in drawn.schema.features if f.kind is not Kind.CATEGORICAL]
    names = [feature.name for feature in features]
    rho = spearman(drawn.rows[:, drawn.schema.index(names)])
    pairs = np.argwhere(np.triu(np.nan_to_num(np.abs(rho)), 1) > 0.98)
    yield heading("Features")
    strong = ", ".join(f"{names[a]} and {names[b]}" for a, b in pairs[:MANY])
    yield picture(
        pictures.encode(pictures.heat_map(rho, names, names, label="Spearman's rank correlation")),
        alt=f"Heat map of the correlations of {len(names)} features. "
        f"{_plural(len(pairs), 'pair has', 'pairs have')} more than 0.98 either way"
        + (f", among them {strong}." if strong else "."),
        caption="Spearman's rank correlation of every amount with every other, benign rows and "
        f"attacks together, of {_of(drawn, len(rows.rows))}. Grey: the feature is constant. "
        "Category features have no order, so they are left out.",
    )
    yield heading("Attack categories")
    if lacking:
        yield text(lacking)
    else:
        yield from _alike(likeness(per_category(rows, CATEGORY_ROWS, seed)))


def _alike(found: Likeness) -> Iterator[Html]:
    alike = found.alike.copy()
    np.fill_diagonal(alike, np.nan)
    pair = ""
    if len(found.categories) > 1 and np.isfinite(alike).any():
        a, b = np.unravel_index(int(np.nanargmax(alike)), alike.shape)
        pair = f" Most alike: {found.categories[a]} and {found.categories[b]}, {alike[a, b]:.2f}."
    yield picture(
        pictures.encode(
            pictures.heat_map(found.alike, found.categories, found.categories, label="correlation")
        ),
        alt=f"Heat map of how alike {len(found.categories)} attack categories are.{pair}",
        caption="How alike attack categories are: the correlation of their mean amounts, each in "
        "standard deviations from the benign mean. 1: they leave the benign mean in the same "
        f"direction. Of at most {CATEGORY_ROWS:,} rows of each category.",
    )
    outer = np.nan_to_num(np.abs(found.direction))
    a, b = np.unravel_index(int(outer.argmax()), outer.shape)
    yield picture(
        pictures.encode(
            pictures.heat_map(
                found.direction, found.categories, found.features, label="rank-biserial correlation"
            )
        ),
        alt="Heat map of attack categories against features. Strongest: "
        f"{found.features[b]} in {found.categories[a]}, {found.direction[a, b]:.2f}.",
        caption="In which direction each category differs from benign rows: the rank-biserial "
        "correlation. 1 (red): every attack's value is above every benign one; -1 (blue): below; "
        "0: neither.",
    )


def _profiles(rows: Table) -> Iterator[Html]:
    yield text(
        "For each category the features that tell it best from normal rows. The distance goes "
        "from 0 (alike) to 1 (never alike): the Kolmogorov-Smirnov statistic of an amount, the "
        "total variation distance of a category feature. Amounts are given by their median and "
        "by the share of values that are not 0, category features by their most frequent term. "
        "The pair beneath is the one whose rank correlation differs most from that among normal "
        f"rows; categories of less than {FEW} rows have none.",
    )
    profiles = Profiles(rows)
    for name in counts(rows):
        if name != NORMAL:
            yield from _profile(profiles.of(name))


def _profile(profile: Profile) -> Iterator[Html]:
    yield heading(profile.category)
    yield table(
        f"{profile.category}: {_plural(profile.rows, 'row', 'rows')}",
        ("feature", "unit", "distance", f"in {profile.category}", "in normal rows"),
        [
            (t.feature.name, t.feature.unit.removeprefix("1"), t.distance, t.here, t.normal)
            for t in profile.traits
        ],
    )
    if pair := profile.together:
        yield text(
            f"{pair.first} and {pair.second}: rank correlation {pair.here:.2f} here, "
            f"{pair.normal:.2f} among normal rows."
        )


def _importances(rows: Table, seed: int) -> Iterator[Html]:
    try:
        found = importances(rows, seed)
    except ValueError as error:
        yield text(f"No forest was grown: {error}.")
        return
    top = len(found.permuted)
    figure = pictures.bars(
        found.features[:top],
        {
            "mean decrease in impurity": found.impurity[:top],
            "loss of AUROC when shuffled": found.permuted,
        },
    )
    first = ", ".join(found.features[:5])
    yield picture(
        pictures.encode(figure),
        alt=f"Bars of the {top} features that matter most to a random forest; first: {first}.",
        caption=f"The {top} features that a random forest of {TREES} trees leans on most, telling "
        f"attacks from benign rows. Grown on {found.rows:,} sampled rows; on held-out rows, none "
        f"of which equals one of those, the area under its ROC curve is {found.held_out:.4f}. "
        "Impurity favours features with many values and shares what twins have in common; what "
        "shuffling costs shows what the forest cannot replace.",
    )
    yield table(
        "Importance of every feature",
        ("feature", "mean decrease in impurity", "loss of AUROC when shuffled"),
        [
            (name, float(found.impurity[at]), float(found.permuted[at]) if at < top else "-")
            for at, name in enumerate(found.features)
        ],
    )
