"""Figures of an assessment: confusion, ROC, reliability, refusal."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from jaxsens import assessment
from jaxsens.reports import style
from jaxsens.uncertainty import calibration
from jaxsens.uncertainty import selection


@style.styled
def plot_confusion(
  counts: np.ndarray, class_names: Sequence[str]
) -> matplotlib.figure.Figure:
  """Returns the confusion matrix (K, K) as shares of the true class."""
  side = max(3.0, 0.55 * len(class_names))
  figure = style.new_figure(side + 2.4, side + 2.0)
  style.add_title(figure, 'True class and answer', 'share of the row; counts')
  axes = style.add_axes(figure, 1.9, 1.2, side, side)
  total = counts.sum(1, keepdims=True)
  shares = counts / np.maximum(total, 1)
  axes.imshow(shares, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
  for (i, j), count in np.ndenumerate(counts):
    if count:
      axes.text(
        j, i, f'{count}', ha='center', va='center', size=9,
        color='white' if shares[i, j] > 0.5 else style.INK,
      )
  names = [style.shorten(name, 20) for name in class_names]
  axes.set_xticks(range(len(names)), names, rotation=45, ha='right')
  axes.set_yticks(range(len(names)), names)
  axes.set_xlabel('answer')
  axes.spines[:].set_visible(False)
  axes.tick_params(length=0)
  return figure


@style.styled
def plot_roc(
  classes: Sequence[assessment.ClassReport],
) -> matplotlib.figure.Figure:
  """Returns the ROC curve of each class against the rest."""
  figure = style.new_figure(7.6, 4.4)
  style.add_title(figure, 'Each class against the rest', 'ROC curves')
  axes = style.add_axes(figure, 0.75, 0.65, 3.0, 3.0)
  places = np.linspace(0, 1, max(len(classes), 2))
  colors = matplotlib.colormaps['tab20'](places)
  for one, color in zip(classes, colors, strict=False):
    if len(one.false_positive_rate):
      axes.step(
        one.false_positive_rate, one.true_positive_rate, where='post',
        color=color, lw=1.4, label=f'{style.shorten(one.name, 24)}  '
        f'{one.auc:.3f}',
      )
  axes.plot([0, 1], [0, 1], color=style.FAINT, lw=1, zorder=0)
  axes.set_xlabel('false positive rate')
  axes.set_ylabel('true positive rate')
  axes.set_xlim(-0.01, 1.01)
  axes.set_ylim(-0.01, 1.01)
  if axes.get_legend_handles_labels()[0]:
    axes.legend(loc='upper left', bbox_to_anchor=(1.05, 1.02),
                title='area under the curve', alignment='left')
  return figure


@style.styled
def plot_trust(
  bins: calibration.Reliability, curve: selection.RiskCoverage
) -> matplotlib.figure.Figure:
  """Returns the reliability diagram beside accuracy against coverage."""
  figure = style.new_figure(8.4, 4.3)
  style.add_title(
    figure, 'Can the confidence be trusted?',
    f'expected calibration error {bins.expected_error:.3f}; area under risk '
    f'and coverage {curve.area:.4f}',
  )
  axes = style.add_axes(figure, 0.75, 0.65, 3.0, 2.9)
  axes.plot([0, 1], [0, 1], color=style.FAINT, lw=1, zorder=0)
  size = 12 + 260 * bins.counts / bins.counts.sum()
  axes.vlines(bins.confidence, bins.confidence, bins.accuracy,
              color=style.MUTED, lw=1)
  axes.scatter(bins.confidence, bins.accuracy, size, color=style.ALONE)
  axes.set_xlabel('confidence (dots grow with the answers)')
  axes.set_ylabel('accuracy')
  axes.set_xlim(0, 1.03)
  axes.set_ylim(0, 1.03)
  axes = style.add_axes(figure, 4.75, 0.65, 3.2, 2.9)
  axes.step(curve.coverage, 1 - curve.risk, where='post', color=style.ALONE)
  axes.set_xlabel('coverage: share that is answered')
  axes.set_ylabel('accuracy of what is answered')
  axes.set_xlim(0, 1.02)
  low = float(np.min(1 - curve.risk))
  axes.set_ylim(max(0, low - 0.1), 1.01)
  return figure
