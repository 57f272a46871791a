"""A plane seen by a pinhole camera, by rays in space."""

import numpy as np


def pull(x, y, size, degrees, field_of_view, axis):
  """Returns where the rays through output points meet the turned plane.

  The camera stands at (0, 0, -d) and looks along z at the picture, whose frame
  lies in the plane z = 0 with y down. The plane turns about the 'x' axis, its
  upper edge going away, or about the 'y' axis, its left edge going away.

  Args:
    x: (...) output coordinates in pixels from the left.
    y: (...) from the top.
    size: (H, W) in pixels.
    degrees: angle of the plane.
    field_of_view: angle over the longer side of the frame, degrees.
    axis: 'x' or 'y'.

  Returns:
    x and y (...) in pixels on the plane.
  """
  height, width = size
  distance = max(size) / 2 / np.tan(np.deg2rad(field_of_view) / 2)
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  right, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
  if axis == 'x':
    down = np.array([0.0, cos, -sin])
  else:
    right = np.array([cos, 0.0, -sin])
  normal = np.cross(right, down)
  camera = np.array([0.0, 0.0, -distance])
  rays = np.stack([
    x - width / 2, y - height / 2, np.full_like(x, distance)
  ], -1)
  along = -(camera @ normal) / (rays @ normal)
  points = camera + along[..., None] * rays
  return points @ right + width / 2, points @ down + height / 2
