"""Figures of certainty: where in a plane a classifier believes itself sure."""

from collections.abc import Mapping

import matplotlib.figure
import numpy as np

from jaxsens.reports import style

_LEVELS = 11


@style.styled
def plot_planes(
  planes: Mapping[str, np.ndarray],
  x: np.ndarray,
  y: np.ndarray,
  points: np.ndarray,
  labels: np.ndarray,
  title: str,
) -> matplotlib.figure.Figure:
  """Returns certainty over a plane, one panel per method, and the data.

  Args:
    planes: (Y, X) certainty in [0, 1] by what is written above the panel.
    x: (X,) coordinates.
    y: (Y,) coordinates.
    points: (N, 2) of the data.
    labels: (N,) their classes, two at most are told apart.
    title: of the figure.
  """
  side, gap = 3.6, 0.35
  count, tall = len(planes), side * np.ptp(y) / np.ptp(x)
  figure = style.new_figure(count * (side + gap) + 1.2, tall + 1.15)
  for i, (name, plane) in enumerate(planes.items()):
    axes = style.add_axes(
      figure, 0.45 + i * (side + gap), 0.4, side, tall, title=name
    )
    filled = axes.contourf(
      x, y, plane, np.linspace(0, 1, _LEVELS), cmap=style.RESPONSE
    )
    for k, color in ((0, 'white'), (1, style.WRONG)):
      chosen = points[labels == k]
      axes.scatter(
        chosen[:, 0], chosen[:, 1], s=5, c=color, linewidths=0.3,
        edgecolors=style.INK,
      )
    axes.set_aspect('equal')
  bar = style.add_axes(
    figure, 0.45 + count * (side + gap) - 0.15, 0.4, 0.15, tall
  )
  figure.colorbar(filled, cax=bar, label='certainty')
  style.add_title(figure, title)
  return figure
