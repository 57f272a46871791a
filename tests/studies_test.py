"""Truths of a study against closed forms, and the study's own contract."""

import dataclasses

import chaospy
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import studies
from jaxsens import classifiers
from jaxsens import factors
from jaxsens.data import image_sets
from jaxsens.gpc import designs
from tests.oracles import anova

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
  factors.Factor('tilt', chaospy.Uniform(-20, 20)),
))
_GRID = {'brightness': 5, 'rotation': 7, 'tilt': 3}


def _mean_and_corner(params, images):
  """Two logits: the means of the image and of its upper left corner."""
  del params
  return jnp.stack(
    [images.mean((1, 2, 3)), images[:, :8, :8].mean((1, 2, 3))], axis=1
  )


def _study(num_images=2):
  x, y = np.meshgrid(np.arange(16) / 16, np.arange(16) / 16)
  pictures = [(x * (y + i) / (1 + i))[..., None] for i in range(num_images)]
  images = image_sets.ImageSet(
    images=np.array(pictures, np.float32),
    labels=np.arange(num_images) % 2,
    names=tuple(f'image-{i}' for i in range(num_images)),
    class_names=('mean', 'corner'),
    groups=tuple(map(str, range(num_images))),
    description='slopes',
  )
  classifier = classifiers.Classifier(
    _mean_and_corner, {'unused': jnp.zeros(1)}, classifiers.identity,
    images.class_names, (16, 16), 1,
  )
  return studies.make_study(
    'slopes', classifier, images, _SPACE, batch_size=8, digest='network'
  )


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
