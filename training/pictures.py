"""Pictures: from arrays to figures that a page and a paper can both use.

Colours are Okabe and Ito's, which colour-blind readers tell apart, and no picture speaks by
colour alone. Figures are drawn without pyplot, so there is no global state and no display,
and the same arrays give the same bytes. matplotlib is imported by the first picture.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_curve,
)

from features.encoder import LOGGED, signed_log
from features.schema import Feature, FloatArray, Kind
from training.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

BENIGN, ATTACK, THRESHOLD = "#0072B2", "#D55E00", "#000000"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
REST = "#999999"
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
DPI = 150

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so pictures are the same everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.hashsalt": "flowvane",
    "pdf.fonttype": 42,
}
_NO_DATE: dict[str, dict[str, Any]] = {
    "png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None},
}  # fmt: skip


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw` in the style of all pictures."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with need("matplotlib", what="pictures").rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


def _figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    made: Figure = need("matplotlib.figure", what="pictures").Figure(
        figsize=(width, height), layout="constrained"
    )
    return made


def encode(figure: Figure, form: str = "png") -> bytes:
    """The figure as a file of ``png``, ``svg`` or ``pdf``, without a date."""
    file = io.BytesIO()
    with need("matplotlib", what="pictures").rc_context(_STYLE):
        figure.savefig(file, format=form, dpi=DPI, metadata=_NO_DATE[form])
    return file.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Write the figure in the format that the suffix of `path` names.

    Raises:
        KeyError: it is none of .png, .svg and .pdf.
        OSError: the file cannot be written.
    """
    path.write_bytes(encode(figure, path.suffix.removeprefix(".")))


# Models


@_styled
def losses(
    training: Sequence[float], validation: Sequence[float], *, unit: str = "nats a flow"
) -> Figure:
    """Training and validation loss of each epoch, ``[E]`` both, and the epoch that was kept."""
    figure = _figure(4.5, 3.0)
    axes = figure.subplots()
    epochs = np.arange(1, len(training) + 1)
    axes.plot(epochs, training, "-o", ms=3, color=BENIGN, label="training")
    axes.plot(epochs, validation, "--^", ms=4, color=ATTACK, label="validation")
    best = int(np.argmin(validation))
    axes.plot(
        epochs[best], validation[best], "o", ms=10, mfc="none", mec=THRESHOLD,
        label=f"kept: epoch {epochs[best]}",
    )  # fmt: skip
    axes.set(xlabel="epoch", ylabel=f"loss ({unit})")
    ticker = need("matplotlib.ticker", what="pictures")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.legend()
    return figure


def _bins(score: FloatArray, count: int = 60) -> tuple[FloatArray, bool]:
    """Edges of bins, and whether they are even on a log scale: where scores span decades."""
    low, high = np.quantile(score, [0.001, 0.999])
    if low > 0 and high > 20 * low:
        return np.geomspace(low, high, count + 1), True
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, count + 1), False


@_styled
def score_histogram(
    score: FloatArray, attack: NDArray[np.bool_], threshold: float, *, unit: str = "nats"
) -> Figure:
    """Scores ``[N]`` of benign rows and attacks, and the threshold with what lies above it.

    The outermost bins hold all that lies beyond, a thousandth at either end.
    """
    figure = _figure(5.5, 3.2)
    axes = figure.subplots()
    edges, logarithmic = _bins(np.append(score, threshold))
    for name, chosen, color, line in (
        ("benign", ~attack, BENIGN, "-"), ("attacks", attack, ATTACK, "--"),
    ):  # fmt: skip
        within = np.clip(score[chosen], edges[0], edges[-1])
        share = 100 * np.histogram(within, edges)[0] / max(len(within), 1)
        above = 100 * np.mean(score[chosen] > threshold) if chosen.any() else 0.0
        label = f"{name} ({chosen.sum():,}): {above:.1f} % above"
        axes.stairs(share, edges, fill=True, alpha=0.3, color=color)
        axes.stairs(share, edges, color=color, ls=line, lw=1.3, label=label)
    axes.axvline(threshold, color=THRESHOLD, lw=1.2, ls=":", label=f"threshold {threshold:.4g}")
    axes.set(xlabel=f"score ({unit})", ylabel="share of the class (%)")
    if logarithmic:
        axes.set_xscale("log")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=3, fontsize=7.5)
    return figure


def _lines(number: int) -> dict[str, Any]:
    """Colour and dashes of one of several lines."""
    # The dashes go on by one with each round of the colours, so that no two lines are alike.
    dash = LINES[(number + number // len(PALETTE)) % len(LINES)]
    return {"color": PALETTE[number % len(PALETTE)], "ls": dash, "lw": 1.4}


@_styled
def roc_curves(models: Mapping[str, tuple[NDArray[np.bool_], FloatArray]]) -> Figure:
    """ROC curves of several models, on a plain and on a logarithmic axis.

    Args:
        models: for each name the labels ``[N]`` (attack) and scores ``[N]``. Few false
            positives are what counts, and the plain axis hides them.
    """
    figure = _figure(7.5, 3.6)
    plain, logarithmic = figure.subplots(1, 2)
    least = 1.0
    for number, (name, (attack, score)) in enumerate(models.items()):
        false, true, _ = roc_curve(attack, score, drop_intermediate=True)
        for axes in (plain, logarithmic):
            axes.plot(false, true, label=f"{name}: {auc(false, true):.4f}", **_lines(number))
        least = min(least, 1 / max(int((~attack).sum()), 1))
    plain.plot([0, 1], [0, 1], color=REST, lw=0.8)
    chance = np.geomspace(max(least, 1e-5), 1, 50)
    logarithmic.plot(chance, chance, color=REST, lw=0.8)
    logarithmic.set_xscale("log")
    logarithmic.set_xlim(max(least, 1e-5), 1)
    plain.set_xlim(0, 1)
    for axes in (plain, logarithmic):
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate", ylim=(0, 1.01))
    plain.legend(loc="lower right", title="area under the curve", fontsize=8)
    return figure


@_styled
def precision_recall_curves(models: Mapping[str, tuple[NDArray[np.bool_], FloatArray]]) -> Figure:
    """Precision and recall of several models: labels ``[N]`` and scores ``[N]`` of each name."""
    figure = _figure(4.8, 3.6)
    axes = figure.subplots()
    shares = set()
    for number, (name, (attack, score)) in enumerate(models.items()):
        precision, recall, _ = precision_recall_curve(attack, score, drop_intermediate=True)
        area = average_precision_score(attack, score)
        axes.plot(recall, precision, label=f"{name}: {area:.4f}", **_lines(number))
        shares.add(round(float(attack.mean()), 6))
    for share in sorted(shares):
        axes.axhline(share, color=REST, lw=0.8)
        axes.annotate(
            f"chance: {share:.2f}", (0, share), (3, 3), textcoords="offset points",
            fontsize=7, color="#555555",
        )  # fmt: skip
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", title="average precision", fontsize=8)
    return figure


@_styled
def confusion(attack: NDArray[np.bool_], alerted: NDArray[np.bool_]) -> Figure:
    """How many benign rows and attacks were alerted: counts, and shares of the class."""
    figure = _figure(3.6, 3.0)
    axes = figure.subplots()
    counts = np.array(
        [
            [int(((attack == a) & (alerted == b)).sum()) for b in (False, True)]
            for a in (False, True)
        ]
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column, row, f"{counts[row, column]:,}\n{100 * share:.1f} %", ha="center", va="center",
            color="white" if share > 0.55 else "black", fontsize=11,
        )  # fmt: skip
    axes.set_xticks([0, 1], ["passed", "alerted"])
    axes.set_yticks([0, 1], ["benign", "attack"], rotation=90, va="center")
    axes.set(xlabel="said of the row", ylabel="what it is")
    axes.grid(visible=False)
    return figure


def flatten(latent: FloatArray) -> FloatArray:
    """Latent vectors ``[N, Z]`` on a plane, ``[N, 2]``: their widest directions, if Z is more."""
    if latent.shape[1] == 1:
        return np.column_stack([latent[:, 0], np.zeros(len(latent))])
    if latent.shape[1] == 2:
        return latent
    placed: FloatArray = PCA(2, svd_solver="full").fit_transform(latent)
    return placed


@_styled
def latent_map(
    latent: FloatArray,
    category: NDArray[np.str_],
    *,
    most: int = 4000,
    seed: int = 0,
) -> Figure:
    """Where rows lie in the latent space, ``[N, Z]``, by category ``[N]``.

    Args:
        latent, category: of the rows; ``normal`` is drawn beneath the others.
        most: a seeded sample of so many rows is drawn.
        seed: of the sample.
    """
    figure = _figure(6.2, 4.2)
    axes = figure.subplots()
    drawn = np.random.default_rng(seed).permutation(len(latent))[:most]
    place, category = flatten(latent[drawn]), category[drawn]
    names, counts = np.unique(category[category != "normal"], return_counts=True)
    shown = list(names[np.argsort(-counts, kind="stable")][: len(PALETTE) - 1])
    for number, name in enumerate(("normal", *shown, None)):
        if name is None:
            chosen = ~np.isin(category, ["normal", *shown])
            look: dict[str, Any] = {"color": REST, "marker": "*", "label": "other attacks"}
        else:
            chosen = category == name
            look = {"color": PALETTE[number], "marker": MARKERS[number], "label": name}
        if chosen.any():
            look["label"] += f" ({chosen.sum():,})"
            x, y = place[chosen].T
            axes.scatter(x, y, s=9, alpha=0.55, linewidths=0, rasterized=True, **look)
    axis = "latent dimension" if latent.shape[1] <= 2 else "principal component"
    axes.set(xlabel=f"{axis} 1", ylabel=f"{axis} 2")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, fontsize=8)
    return figure


@_styled
def bars(names: Sequence[str], panels: Mapping[str, FloatArray]) -> Figure:
    """Amounts ``[U]`` of each name, the first name on top.

    Args:
        names: ``U`` of them.
        panels: what is measured, with its unit, and the amounts; each has an axis of its own.
    """
    figure = _figure(2.2 + 2.6 * len(panels), 0.8 + 0.2 * len(names))
    at = np.arange(len(names))
    axes_of = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for number, (axes, (label, values)) in enumerate(zip(axes_of, panels.items(), strict=True)):
        axes.barh(at, values, 0.7, color=PALETTE[number])
        axes.axvline(0, color="black", lw=0.8)
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(visible=False, axis="y")
    axes_of[0].set_yticks(at, list(names), fontsize=8)
    axes_of[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


# Data


@_styled
def class_pie(counts: Mapping[str, int], most: int = 8) -> Figure:
    """Shares of the categories; all but the `most` frequent are one slice."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    slices = ordered[:most]
    if rest := ordered[most:]:
        slices.append((f"{len(rest)} others", sum(count for _, count in rest)))
    total = sum(counts.values())
    colors, attacks = [], 0
    for name, _ in slices:
        if name == "normal":
            colors.append(BENIGN)
        elif rest and name == slices[-1][0]:
            colors.append(REST)
        else:
            colors.append(PALETTE[1 + attacks % (len(PALETTE) - 1)])
            attacks += 1
    figure = _figure(6.2, 3.4)
    axes = figure.subplots()
    values = [count for _, count in slices]
    patches = axes.pie(
        values, colors=colors, startangle=90, counterclock=False,
        wedgeprops={"width": 0.45, "edgecolor": "white"},
    )[0]  # fmt: skip
    for number, patch in enumerate(patches):
        if number >= len(PALETTE) and colors[number] != REST:
            patch.set_hatch("///")  # its colour is another's, too
    labels = [f"{name}: {count:,} ({100 * count / total:.2g} %)" for name, count in slices]
    axes.legend(patches, labels, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.text(0, 0, f"{total:,}\nrows", ha="center", va="center", fontsize=11)
    return figure


def _decades(low: float, high: float) -> list[float]:
    """About five round ticks for a signed log axis from `low` to `high`."""
    most = int(np.ceil(np.log10(max(high, 1.0))))
    step = max(1, -(-most // 4))
    # Where decades are many, 1 stands too near to 0 to be written.
    ticks = [0.0, *(10.0**power for power in range(0 if step == 1 else step, most + 1, step))]
    return [tick for tick in ticks if low <= tick <= high] + ([low] if low < -1 else [])


def _short(value: float) -> str:
    if abs(value) >= 1e4:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:g}" if value == round(value) else f"{value:.3g}"


def _amounts(axes: Axes, feature: Feature, values: FloatArray, attack: NDArray[np.bool_]) -> None:
    """Histograms of one amount, count, rate or binary feature ``[N]``."""
    logged = feature.kind in LOGGED
    scaled = signed_log(values) if logged else values
    low, high = float(scaled.min()), float(scaled.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 31)
    for chosen, color, line in ((~attack, BENIGN, "-"), (attack, ATTACK, "--")):
        if chosen.any():
            share = 100 * np.histogram(scaled[chosen], edges)[0] / chosen.sum()
            axes.stairs(share, edges, fill=True, alpha=0.25, color=color, baseline=1e-3)
            axes.stairs(share, edges, color=color, ls=line, lw=1.2, baseline=1e-3)
    axes.set_yscale("log")
    axes.set_ylim(1e-2, 150)
    axes.set_yticks([0.01, 1, 100], ["0.01", "1", "100"])
    axes.minorticks_off()
    if logged:
        ticks = _decades(float(values.min()), float(values.max()))
        axes.set_xticks(signed_log(np.array(ticks)), [_short(tick) for tick in ticks])
    axes.set_xlabel(feature.unit if feature.unit not in ("", "1") else "", fontsize=7.5, labelpad=1)


def _terms(axes: Axes, feature: Feature, values: FloatArray, attack: NDArray[np.bool_]) -> None:
    """Bars of the most frequent terms of a category ``[N]``."""
    codes, counts = np.unique(values, return_counts=True)
    top = codes[np.argsort(-counts, kind="stable")][:7]
    at = np.arange(len(top))
    for offset, chosen, color, hatch in ((-0.2, ~attack, BENIGN, ""), (0.2, attack, ATTACK, "///")):
        if chosen.any():
            share = [100 * float((values[chosen] == code).mean()) for code in top]
            axes.barh(
                at + offset, share, 0.4, color=color, alpha=0.8, hatch=hatch, ec="white", lw=0
            )
    axes.set_yticks(at, [feature.show(code)[:18] for code in top], fontsize=7)
    axes.set_ylim(len(top) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("%", fontsize=7.5, labelpad=1)


@_styled
def distributions(
    features: Sequence[Feature], rows: FloatArray, attack: NDArray[np.bool_], columns: int = 4
) -> Figure:
    """How each feature is distributed among benign rows and among attacks.

    Args:
        features: one panel each.
        rows: ``[N, len(features)]``; amounts are on a signed log axis, as models see them.
        attack: ``[N]``.
        columns: panels side by side.
    """
    lines = -(-len(features) // columns)
    figure = _figure(2.3 * columns, 0.45 + 1.55 * lines)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for at, (axes, feature) in enumerate(zip(panels, features, strict=False)):
        draw = _terms if feature.kind is Kind.CATEGORICAL else _amounts
        draw(axes, feature, rows[:, at], attack)
        axes.set_title(feature.name, fontsize=8.5)
        axes.tick_params(labelsize=7, pad=2)
    for axes in panels[len(features) :]:
        axes.set_axis_off()
    patches = need("matplotlib.patches", what="pictures")
    handles = [
        patches.Patch(fc=color, alpha=0.6, label=name)
        for name, color, chosen in (("benign", BENIGN, ~attack), ("attacks", ATTACK, attack))
        if chosen.any()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    figure.supylabel("share of the class (%)", fontsize=8.5)
    return figure


@_styled
def heat_map(
    matrix: FloatArray, rows: Sequence[str], columns: Sequence[str], *, label: str
) -> Figure:
    """A matrix ``[R, C]`` of values from -1 to 1; NaN, where there is none, is grey."""
    cell = 0.16 if max(len(rows), len(columns)) > 12 else 0.42
    width = 2.4 + max(cell * len(columns), 2.0)
    figure = _figure(width, 1.6 + max(cell * len(rows), 0.6))
    axes = figure.subplots()
    colors = need("matplotlib", what="pictures").colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=colors, vmin=-1, vmax=1, aspect="auto")
    size = 6.5 if cell < 0.2 else 8.5
    axes.set_xticks(np.arange(len(columns)), list(columns), rotation=90, fontsize=size)
    axes.set_yticks(np.arange(len(rows)), list(rows), fontsize=size)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if cell > 0.2:
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                axes.text(
                    column, row, f"{value:.2f}".replace("0.", ".").replace("-", "−"),
                    ha="center", va="center", fontsize=6.5,
                    color="white" if abs(value) > 0.65 else "black",
                )  # fmt: skip
    figure.colorbar(image, ax=axes, label=label, fraction=0.04, pad=0.02)
    return figure
