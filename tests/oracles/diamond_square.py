"""Diamond-square point by point."""

import numpy as np


def plasma(draws, decay):
  """Returns the periodic height map from 0 to 1.

  Args:
    draws: (N, N) from -1 to 1, one for every point; N a power of two.
    decay: the offsets of a pass are those of the one before over decay^2.
  """
  num = len(draws)
  heights, amplitude, step = np.zeros((num, num)), 1.0, num

  def displace(i, j, neighbours):
    mean = np.mean([heights[(i + a) % num, (j + b) % num]
                    for a, b in neighbours])
    heights[i, j] = mean + amplitude * draws[i, j]

  while step > 1:
    half = step // 2
    diagonal = [(a, b) for a in (-half, half) for b in (-half, half)]
    straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
    for i in range(half, num, step):
      for j in range(half, num, step):
        displace(i, j, diagonal)
    for i in range(0, num, half):
      for j in range(half if i % step == 0 else 0, num, step):
        displace(i, j, straight)
    step, amplitude = half, amplitude / decay**2
  heights -= heights.min()
  return heights / heights.max()
