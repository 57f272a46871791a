"""Lines and planes of a space, and where something first changes."""

import chaospy
import numpy as np
import pytest

from jaxsens import factors
from jaxsens import slices

_SPACE = factors.FactorSpace((
  factors.Factor('x', chaospy.Uniform(-1, 3)),
  factors.Factor('y', chaospy.Normal(10, 2)),
  factors.Factor('z', chaospy.LogUniform(0, 1)),
))


def test_axis_spans_bounded_factors_and_the_quantiles_of_others():
  np.testing.assert_allclose(slices.axis(_SPACE, 'x', 5), [-1, 0, 1, 2, 3])
  # 99.5 % quantile of the standard normal: 2.5758293.
  np.testing.assert_allclose(
    slices.axis(_SPACE, 'y', 3), [10 - 5.1516586, 10, 10 + 5.1516586]
  )
  np.testing.assert_allclose(slices.axis(_SPACE, 'z', 2), [1, np.e])


def test_line_passes_through_the_point_and_varies_one_factor():
  nodes = slices.line(_SPACE, 'x', 4, (0.5, 10, 2))
  assert 0.5 in nodes[:, 0] and len(nodes) == 5
  assert (np.diff(nodes[:, 0]) > 0).all()
  np.testing.assert_array_equal(nodes[:, 1:], [[10, 2]] * 5)


def test_line_beside_the_point_does_not_leave_the_range():
  nodes = slices.line(_SPACE, 'x', 4, (7.0, 10, 2))
  assert nodes[:, 0].max() == 3 and len(nodes) == 4


def test_plane_varies_two_factors_the_second_fastest():
  nodes = slices.plane(_SPACE, ('x', 'z'), 3, (0, 10, 2))
  assert nodes.shape == (9, 3)
  np.testing.assert_allclose(nodes[:3, 0], -1)
  np.testing.assert_allclose(nodes[::3, 2], 1)
  np.testing.assert_array_equal(nodes[:, 1], 10)


@pytest.mark.parametrize(('changed', 'expected'), [
  ([0, 0, 0, 0, 0], (None, None)),
  ([1, 0, 0, 0, 1], (-2.0, 2.0)),
  ([1, 1, 0, 0, 0], (-1.0, None)),
  ([0, 0, 1, 0, 0], (0.0, 0.0)),
  ([1, 0, 0, 1, 1], (-2.0, 1.0)),
])
def test_first_change_is_the_nearest_on_each_side(changed, expected):
  values = np.arange(-2.0, 3.0)
  assert slices.first_change(values, changed, 0.0) == expected
