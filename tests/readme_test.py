"""The README's Python examples run and say what the README says."""

import pathlib
import re

import numpy as np
import pytest

_README = pathlib.Path(__file__).parents[1] / 'README.md'


def _examples():
  return re.findall(r'```python\n(.*?)```', _README.read_text(), re.DOTALL)


def test_readme_is_short():
  assert len(_README.read_text().splitlines()) < 250


def test_plain_function_example_gives_the_closed_form():
  scope = {}
  exec(_examples()[0], scope)
  # y = load (1 + rain): with load U(0, 2) and rain U(0, 1), V = 7/9 - ... by
  # the moments E[a^2] E[b^2] - (E[a] E[b])^2 of independent factors.
  a2, b2, a, b = 4 / 3, 7 / 3, 1.0, 1.5
  variance = a2 * b2 - (a * b) ** 2
  load, rain = (a2 - a**2) * b**2 / variance, (b2 - b**2) * a**2 / variance
  np.testing.assert_allclose(
    scope['result'].indices.first_order[:, 0], [load, rain], atol=1e-10
  )
  np.testing.assert_allclose(scope['result'].q2, 1, atol=1e-10)


def test_flax_example_gives_indices_of_the_network():
  scope = {}
  exec(_examples()[1], scope)
  result = scope['result']
  assert result.indices.names == ('brightness', 'rotation')
  total = result.indices.total[:, 0]
  assert ((0 <= total) & (total <= 1 + 1e-9)).all()
  assert (result.intervals.total_lower[:, 0] <= total).all()
  assert (total <= result.intervals.total_upper[:, 0]).all()


@pytest.mark.parametrize('link', re.findall(
  r'\]\(((?!http)[^)#]+)', _README.read_text()
))
def test_linked_files_exist(link):
  assert (_README.parent / link).exists()
