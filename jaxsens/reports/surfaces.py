"""Figure of the response over two factors.

The expansion is a filled map and a relief; the network's own answers at the
nodes are dots on the same colour scale, so a dot that stands out is an error.
"""

from matplotlib import ticker
import matplotlib.figure
import numpy as np

from jaxsens.reports import results
from jaxsens.reports import style


@style.styled
def plot_surface(surface: results.Surface) -> matplotlib.figure.Figure:
  """Returns the expansion over two factors as a map and in three dimensions.

  Args:
    surface: The response; (A, B) with at least two values along each.

  Returns:
    A figure; the network's own answers are dots on the same colour scale.
  """
  figure = style.new_figure(9.4, 4.5)
  fixed = ', '.join(f'{n} = {v:.3g}' for n, v in surface.fixed.items())
  dots = f'{len(surface.nodes_x)} dots: the network itself, same colours'
  style.add_title(
    figure,
    f'{surface.output_name} over {surface.name_x} and {surface.name_y}',
    f'at {fixed}; {dots}' if fixed else dots,
  )
  shown = np.concatenate([surface.surrogate.ravel(), surface.nodes_truth])
  low, high = np.nanmin(shown), np.nanmax(shown)
  scale = {'vmin': low, 'vmax': high if high > low else low + 1e-6,
           'cmap': style.RESPONSE}
  grid = np.meshgrid(surface.x, surface.y, indexing='ij')
  _draw_map(figure, surface, grid, scale)
  _draw_relief(figure, surface, grid, scale)
  return figure


def _draw_map(figure, surface, grid, scale):
  axes = style.add_axes(figure, 0.95, 0.6, 2.95, 3.05)
  levels = np.linspace(scale['vmin'], scale['vmax'], 21)
  axes.contourf(*grid, surface.surrogate, levels, **scale)
  axes.contour(*grid, surface.surrogate, levels[::4], colors='white',
               linewidths=0.5, alpha=0.6)
  dots = axes.scatter(
    surface.nodes_x, surface.nodes_y, 26, surface.nodes_truth, **scale,
    edgecolors='white', linewidths=0.9, zorder=3,
  )
  axes.set_xlabel(_axis_name(surface.name_x, surface.unit_x))
  axes.set_ylabel(_axis_name(surface.name_y, surface.unit_y))
  axes.set_xlim(surface.x[0], surface.x[-1])
  axes.set_ylim(surface.y[0], surface.y[-1])
  bar = figure.colorbar(dots, cax=style.add_axes(figure, 4.02, 0.6, 0.13, 3.05))
  bar.outline.set_visible(False)
  bar.ax.tick_params(length=0)


def _draw_relief(figure, surface, grid, scale):
  axes = style.add_axes(figure, 4.85, 0.2, 4.3, 3.85, projection='3d')
  axes.set_box_aspect((1, 1, 0.7), zoom=0.85)
  axes.computed_zorder = False
  axes.plot_surface(*grid, surface.surrogate, **scale, rcount=36, ccount=36,
                    linewidth=0, antialiased=False, alpha=0.85, zorder=1)
  axes.scatter(
    surface.nodes_x, surface.nodes_y, surface.nodes_truth, s=18,
    c=surface.nodes_truth, **scale, edgecolors=style.INK, linewidths=0.6,
    depthshade=False, zorder=2,
  )
  axes.set_zlim(scale['vmin'], scale['vmax'])
  axes.set_xlabel(surface.name_x)
  axes.set_ylabel(surface.name_y)
  axes.set_xlim(surface.x[0], surface.x[-1])
  axes.set_ylim(surface.y[0], surface.y[-1])
  axes.view_init(elev=28, azim=_view(surface))
  for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
    axis.set_pane_color('#f4f6f8')
    axis.set_major_locator(ticker.MaxNLocator(4))
    axis.set_tick_params(labelsize=8.5, pad=0)


def _view(surface):
  """Returns the azimuth, of four, whose near side is the lowest.

  Dots are drawn over the relief, also those behind it, so the high side should
  stand at the back.
  """
  x = np.linspace(-1, 1, len(surface.x))[:, None]
  y = np.linspace(-1, 1, len(surface.y))[None, :]

  def near_height(azimuth):
    angle = np.deg2rad(azimuth)
    nearness = x * np.cos(angle) + y * np.sin(angle)
    return np.nanmean(surface.surrogate * nearness)

  return min((-55, 35, 125, 215), key=near_height)


def _axis_name(name, unit):
  return f'{name} ({unit})' if unit else name
