"""Truths of a study against closed forms, and the study's own contract."""

import dataclasses

import chaospy
import numpy as np
import pytest

from experiments.benchmarks import studies
from jaxsens import factors
from jaxsens.gpc import designs
from tests.oracles import anova
from tests.oracles import slopes

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
  factors.Factor('tilt', chaospy.Uniform(-20, 20)),
))
_GRID = {'brightness': 5, 'rotation': 7, 'tilt': 3}


def _study():
  return slopes.study(_SPACE, gain=1, batch_size=8)


def test_grid_indices_equal_closed_forms():
  sizes = (24, 20, 24)
  space = factors.FactorSpace(tuple(
    factors.Factor(name, chaospy.Uniform(-1, 1)) for name in 'abc'
  ))
  nodes = designs.tensor_gauss(space, sizes).nodes
  values = anova.ishigami(nodes)[:, 0].reshape(sizes)
  weights = [np.polynomial.legendre.leggauss(n)[1] / 2 for n in sizes]
  found = studies.grid_indices(values, weights, space.names)
  variances = anova.ishigami_variances()
  expected = anova.indices(variances)
  np.testing.assert_allclose(
    found.first_order, [expected[d,] for d in range(3)], atol=1e-6
  )
  np.testing.assert_allclose(
    found.total, anova.total_indices(expected), atol=1e-6
  )
  np.testing.assert_allclose(found.variance, sum(variances.values()), rtol=1e-6)
  assert found.num_evaluations == 24 * 20 * 24


def test_logits_are_those_of_the_perturbed_image():
  study = _study()
  values = np.array([[1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
  logits = study.evaluate(1, values)
  image = study.images.images[1]
  expected = np.array([image.mean(), image[:8, :8].mean()])
  assert logits.dtype == np.float64
  np.testing.assert_allclose(logits, [expected, expected / 2], rtol=1e-4)


def test_probability_is_the_softmax_and_does_not_overflow():
  logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])
  np.testing.assert_allclose(studies.probability(logits, 1), [0.75, 0.0])


def test_truth_is_kept_and_found_again(tmp_path, monkeypatch):
  first = studies.truth(_study(), 0, _GRID, folder=tmp_path)
  assert first.names == _SPACE.names and first.num_evaluations == 105
  study = _study()
  monkeypatch.setattr(
    studies.Study, 'evaluate', lambda *_: pytest.fail('evaluated again')
  )
  again = studies.truth(study, 0, _GRID, folder=tmp_path)
  for field in dataclasses.fields(studies.Truth):
    np.testing.assert_array_equal(
      getattr(first, field.name), getattr(again, field.name)
    )


def test_sampled_truth_agrees_with_the_grid_within_its_interval(tmp_path):
  study = _study()
  grid = {'brightness': 16, 'rotation': 48, 'tilt': 12}
  expected = studies.truth(study, 1, grid, folder=tmp_path)
  found = studies.sampled_truth(study, 1, 256, folder=tmp_path)
  assert found.num_evaluations == 8 * 256 * 5
  assert 0 < found.half_width < 0.04 and expected.half_width == 0
  # Half a width is 2.4 standard errors of a mean of eight.
  atol = 2 * found.half_width
  np.testing.assert_allclose(found.first_order, expected.first_order, atol=atol)
  np.testing.assert_allclose(found.total, expected.total, atol=atol)
  again = studies.sampled_truth(study, 1, 256, folder=tmp_path)
  assert again.half_width == found.half_width
  np.testing.assert_array_equal(again.errors, found.errors)


def test_errors_of_a_sampled_truth_are_those_of_its_intervals(tmp_path):
  found = studies.sampled_truth(_study(), 1, 64, num_samples=4, folder=tmp_path)
  assert found.first_order_error.shape == found.total_error.shape == (3,)
  np.testing.assert_array_equal(
    found.errors, np.concatenate([found.first_order_error, found.total_error])
  )
  # Student's t of 3 degrees of freedom at 0.975, of any table.
  np.testing.assert_allclose(found.half_width, 3.18245 * found.errors.max(),
                             rtol=1e-5)


def test_errors_of_a_sampled_truth_are_those_of_repeated_ones(tmp_path):
  # The same image at other positions is sampled with other keys.
  study = _study()
  pictures = dataclasses.replace(
    study.images, images=np.repeat(study.images.images[1:], 30, 0),
    labels=np.ones(30), names=tuple(map(str, range(30))), groups=('',) * 30,
  )
  study = dataclasses.replace(study, images=pictures)
  found = [
    studies.sampled_truth(study, i, 16, folder=tmp_path / str(i))
    for i in range(30)
  ]
  spread = np.std([one.indices for one in found], axis=0, ddof=1)
  claimed = np.sqrt(np.mean([one.errors**2 for one in found], axis=0))
  # A standard deviation of 30 is known to 13 %, three times that is allowed.
  np.testing.assert_allclose(claimed, spread, rtol=0.4)


def test_truths_kept_before_there_were_errors_are_read(tmp_path, monkeypatch):
  study = _study()
  studies.sampled_truth(study, 0, 16, folder=tmp_path)
  (path,) = tmp_path.iterdir()
  with np.load(path) as kept:
    old = {name: kept[name] for name in kept.files if 'error' not in name}
  assert len(old) < len(kept.files)
  np.savez(path, **old)
  monkeypatch.setattr(
    studies.Study, 'evaluate', lambda *_: pytest.fail('evaluated again')
  )
  found = studies.sampled_truth(study, 0, 16, folder=tmp_path)
  assert found.half_width == old['half_width']
  assert found.first_order_error is None and found.errors is None


def test_error_of_a_grid_is_not_of_chance(tmp_path):
  found = studies.truth(_study(), 0, _GRID, folder=tmp_path)
  np.testing.assert_array_equal(found.errors, np.zeros(6))


def test_another_image_grid_network_or_range_is_another_truth(tmp_path):
  study = _study()
  other = factors.FactorSpace((
    factors.Factor('brightness', chaospy.Uniform(0, 1)), *_SPACE.factors[1:]
  ))
  studies.truth(study, 0, _GRID, folder=tmp_path)
  studies.truth(study, 1, _GRID, folder=tmp_path)
  studies.truth(study, 0, _GRID | {'tilt': 4}, folder=tmp_path)
  for change in ({'digest': 'other'}, {'space': other}):
    studies.truth(
      dataclasses.replace(study, **change), 0, _GRID, folder=tmp_path
    )
  assert len(list(tmp_path.glob('slopes-*.npz'))) == 5
