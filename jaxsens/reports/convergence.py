"""How the intervals of all images narrow with the runs of the model."""

from collections.abc import Sequence

from matplotlib import lines
import matplotlib.figure
import numpy as np

from jaxsens.reports import results
from jaxsens.reports import style


def plot(
  steps: Sequence[results.ConvergenceStep], tolerance: float | None
) -> matplotlib.figure.Figure:
  """Returns the width of the intervals against the model runs.

  Args:
    steps: One step or more.
    tolerance: Half-width at which an image is finished, None without.

  Returns:
    A figure with one thin line per image, their median, and the tolerance.
  """
  widths = np.array([step.half_widths for step in steps], np.float64)
  widths = np.where(widths > 0, widths, np.nan)
  runs = np.array([
    np.broadcast_to(step.num_evaluations, widths.shape[1:])
    for step in steps
  ])  # fmt: skip
  figure = style.new_figure(6.4, 4.3)
  style.add_title(
    figure, 'How the intervals narrow', _subtitle(tolerance, widths)
  )
  axes = style.add_axes(figure, 0.85, 0.6, 5.3, 2.75)
  axes.plot(runs, widths, color=style.MUTED, lw=0.6, alpha=0.45)
  median = [np.median(row[np.isfinite(row)]) if np.isfinite(row).any()
            else np.nan for row in widths]
  axes.plot(np.median(runs, axis=1), median, color=style.ALONE, lw=2.4,
            marker='o', ms=4)
  handles = [
    lines.Line2D([], [], color=style.MUTED, lw=0.8, label='one image'),
    lines.Line2D([], [], color=style.ALONE, lw=2.4, label='median'),
  ]
  if tolerance is not None:
    dashed = {'color': style.WRONG, 'lw': 1.2, 'ls': (0, (4, 3))}
    axes.axhline(tolerance, **dashed)
    handles.append(lines.Line2D(
      [], [], label=f'tolerance {tolerance:g}', **dashed
    ))
  axes.set(xscale='log', yscale='log', xlabel='model runs per image',
           ylabel='largest half-width')
  ticks = np.unique(np.median(runs, axis=1))
  axes.set_xticks(ticks, [f'{tick:,.0f}' for tick in ticks])
  axes.yaxis.set_major_formatter('{x:g}')
  axes.minorticks_off()
  axes.grid(color=style.FAINT, lw=0.5)
  axes.set_axisbelow(True)
  figure.legend(
    handles=handles, ncols=3, loc='lower left', borderpad=0, borderaxespad=0,
    bbox_to_anchor=(0.85 / 6.4, 3.43 / 4.3), columnspacing=1.2,
  )
  return figure


def _subtitle(tolerance, widths):
  if tolerance is None:
    return f'{widths.shape[1]} images'
  # An image that was finished early has no later widths.
  known = np.isfinite(widths)
  last = widths.shape[0] - 1 - np.argmax(known[::-1], axis=0)
  final = widths[last, np.arange(widths.shape[1])]
  done = np.count_nonzero(final <= tolerance)
  return (
    f'{done} of {widths.shape[1]} images within the tolerance in the end'
  )
