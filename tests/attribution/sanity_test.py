"""Randomised params, cascades of heat maps, other classes, similarity."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.attribution import maps
from jaxsens.attribution import randomised_params
from jaxsens.attribution import sanity
from jaxsens.attribution import similarity
from tests.oracles import linear_scores
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_CALLED = ('stem', 'norm', 'first', 'second', 'head')


def _gradient(classifier, images, targets):
  return maps.scores_and_gradients(
    classifier, images, targets, quantity='logit'
  )[1]


def _edges(classifier, images, targets):
  """A map that does not look at the network."""
  del classifier, targets
  return jnp.abs(images - jnp.roll(images, 1, 1))


def _on_host(classifier, images, targets):
  return np.asarray(_gradient(classifier, images, targets))


class ParamsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.classifier = small_networks.classifier(jax.random.key(0))
    self.params = self.classifier.params

  def test_modules_are_listed_in_calling_order(self):
    self.assertEqual(
      randomised_params.calling_order(self.classifier), _CALLED
    )
    self.assertEqual(
      randomised_params.module_names(self.params),
      ('first', 'head', 'norm', 'second', 'stem'),
    )
    linear = linear_scores.classifier(jax.random.key(0))
    self.assertEqual(randomised_params.calling_order(linear), ('head',))

  def test_permutation_keeps_the_values_of_each_array(self):
    found = randomised_params.permuted(jax.random.key(1), self.params)
    moved = 0
    for old, new in zip(
      jax.tree.leaves(self.params), jax.tree.leaves(found), strict=True
    ):
      np.testing.assert_array_equal(
        np.sort(old, axis=None), np.sort(new, axis=None)
      )
      moved += np.any(old != new)
    self.assertGreaterEqual(moved, 10)

  def test_what_is_not_floating_point_stays(self):
    params = {'a': {'kernel': jnp.arange(6.0), 'count': jnp.arange(6)},
              'key': jax.random.key(3)}
    fresh = randomised_params.permuted(jax.random.key(1), params)
    found = randomised_params.stage_params(params, fresh, ['a'], 'cascading')
    np.testing.assert_array_equal(found['a']['count'], [np.arange(6)])
    np.testing.assert_array_equal(found['a']['kernel'][0], fresh['a']['kernel'])
    self.assertEqual(found['key'].shape, (1,))

  @parameterized.parameters('cascading', 'independent')
  def test_stages_hold_the_layers_that_they_should(self, mode):
    fresh = jax.tree.map(lambda x: 0 * x + 7, self.params)
    found = randomised_params.stage_params(self.params, fresh, _CALLED, mode)
    later = randomised_params.stage_params(
      self.params, fresh, _CALLED, mode, stages=[3, 4]
    )
    for stage in range(5):
      for layer, name in enumerate(_CALLED):
        own = 4 - stage
        expected = layer >= own if mode == 'cascading' else layer == own
        trained = jax.tree.leaves(self.params[name])
        for i, leaf in enumerate(jax.tree.leaves(found[name])):
          np.testing.assert_array_equal(
            leaf[stage], 7 if expected else trained[i]
          )
    for whole, part in zip(
      jax.tree.leaves(found), jax.tree.leaves(later), strict=True
    ):
      np.testing.assert_array_equal(whole[3:], part)

  def test_prefixes_cover_what_they_begin(self):
    params = {'block': {'0': {'kernel': jnp.ones(3)},
                        '1': {'kernel': jnp.ones(3)}},
              'blocks': {'kernel': jnp.ones(3)}}
    fresh = jax.tree.map(jnp.zeros_like, params)
    found = randomised_params.stage_params(
      params, fresh, ['block'], 'independent'
    )
    np.testing.assert_array_equal(found['block']['1']['kernel'], 0)
    np.testing.assert_array_equal(found['blocks']['kernel'], 1)

  def test_bad_names_and_trees_are_named(self):
    call = lambda names, fresh=self.params, mode='cascading': (
      randomised_params.stage_params(self.params, fresh, names, mode)
    )
    with self.assertRaisesRegex(ValueError, "'frist'.*first"):
      call(['frist'])
    with self.assertRaisesRegex(ValueError, 'twice'):
      call(['head', 'head'])
    with self.assertRaisesRegex(ValueError, "'bottom'"):
      call(['head'], mode='bottom')
    with self.assertRaisesRegex(ValueError, 'at least'):
      call([])
    with self.assertRaisesRegex(ValueError, 'structure'):
      call(['head'], fresh={'head': jnp.ones(3)})
    other = small_networks.classifier(jax.random.key(0), num_classes=5)
    with self.assertRaisesRegex(ValueError, r'head.*\(4,\), got \(5,\)'):
      call(['head'], fresh=other.params)


class RandomiseTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.classifier = small_networks.classifier(jax.random.key(0), size=16)
    self.images = linear_scores.images(3, 16)
    self.key = jax.random.key(1)

  @parameterized.parameters('cascading', 'independent')
  def test_one_vmap_equals_a_loop_over_stages(self, mode):
    found, parts, loop = (
      sanity.randomise(
        self.key, self.classifier, self.images, explain, mode=mode,
        chunk_size=2, **options,
      )
      for explain, options in (
        (_gradient, {}), (_gradient, {'stages_at_once': 2}),
        (_on_host, {'vectorised': False}),
      )
    )
    self.assertEqual(found.stages, _CALLED[::-1])
    self.assertEqual(found.heat_maps.shape, (5, 3, 16, 16))
    scale = np.abs(found.heat_maps).max()
    for other in (parts, loop):
      np.testing.assert_allclose(
        found.heat_maps, other.heat_maps, atol=1e-5 * scale
      )
    np.testing.assert_allclose(
      found.similarity.ssim, loop.similarity.ssim, atol=1e-4
    )
    some = sanity.randomise(
      self.key, self.classifier, self.images, _on_host, mode=mode,
      vectorised=False, stages=[1, 4], chunk_size=2,
    )
    self.assertEqual(some.stages, (_CALLED[3], _CALLED[0]))
    np.testing.assert_array_equal(some.heat_maps, loop.heat_maps[[1, 4]])
    with self.assertRaisesRegex(ValueError, r'from 0 to 4, got \[5\]'):
      sanity.randomise(
        self.key, self.classifier, self.images, _on_host, stages=[5]
      )

  def test_identical_model_has_exactly_one(self):
    found = sanity.randomise(
      self.key, self.classifier, self.images, _gradient,
      fresh=self.classifier.params, vectorised=False,
    ).similarity
    for values in (found.spearman, found.absolute_spearman, found.ssim):
      np.testing.assert_allclose(values, 1, atol=1e-12)

  def test_map_that_ignores_the_network_has_one(self):
    found = sanity.randomise(
      self.key, self.classifier, self.images, _edges
    ).similarity
    np.testing.assert_allclose(found.spearman, 1, atol=1e-12)

  @parameterized.parameters(True, False)
  def test_gradient_of_randomised_linear_models_has_none(self, fresh):
    size, number = 40, 12
    linear = linear_scores.classifier(jax.random.key(3), size=size, channels=1)
    images = linear_scores.images(1, size, channels=1)
    found = []
    for key in jax.random.split(self.key, number):
      other = linear_scores.classifier(key, size=size, channels=1).params
      found.append(sanity.randomise(
        key, linear, images, _gradient, 0, fresh=other if fresh else None
      ).similarity.spearman[0, 0])
    # One map of n independent pixels has a standard error of 1 / sqrt(n - 1).
    error = 1 / np.sqrt(size**2 - 1)
    self.assertLess(np.abs(found).max(), 5 * error)
    self.assertLess(abs(np.mean(found)), 5 * error / np.sqrt(number))

  def test_targets_stay_those_of_the_trained_network(self):
    found = sanity.randomise(
      self.key, self.classifier, self.images, _gradient, names=['head']
    )
    answers = np.asarray(self.classifier(self.images)).argmax(-1)
    np.testing.assert_array_equal(found.targets, answers)

  def test_constant_maps_are_undefined_and_counted(self):
    found = sanity.randomise(
      self.key, self.classifier, self.images,
      lambda classifier, images, targets: 0 * images[..., 0], names=['head'],
    ).similarity
    self.assertEqual(found.num_undefined, 3)
    np.testing.assert_array_equal(found.ssim, 1)

  def test_maps_of_another_size_are_refused(self):
    with self.assertRaisesRegex(ValueError, r'\(3, 16, 16\), got \(3, 8, 8\)'):
      sanity.randomise(
        self.key, self.classifier, self.images,
        lambda classifier, images, targets: images[:, ::2, ::2, 0],
      )
    with self.assertRaisesRegex(ValueError, 'stages_at_once'):
      sanity.randomise(
        self.key, self.classifier, self.images, _gradient, stages_at_once=0
      )

  def test_other_class_differs_and_its_map_is_compared(self):
    linear = linear_scores.classifier(jax.random.key(3), num_classes=2)
    kernel = np.asarray(linear.params['head']['kernel'])
    images = linear_scores.images(4)
    found = sanity.random_logit(self.key, linear, images, _gradient)
    np.testing.assert_array_equal(found.others, 1 - found.targets)
    shape = (1, 9, 9, 3)
    pair = [kernel[:, c].reshape(shape).sum(-1) for c in (0, 1)]
    expected = similarity.compare(*pair)
    np.testing.assert_allclose(found.similarity.spearman, expected.spearman[0])
    np.testing.assert_allclose(
      found.similarity.ssim, expected.ssim[0], rtol=1e-6
    )

  def test_other_classes_are_drawn_evenly(self):
    linear = linear_scores.classifier(jax.random.key(3), size=2, num_classes=4)
    images = linear_scores.images(300, 2)
    found = sanity.random_logit(
      self.key, linear, images, _edges, 1, chunk_size=300
    )
    counts = np.bincount(found.others, minlength=4)
    self.assertEqual(counts[1], 0)
    error = np.sqrt(300 * (1 / 3) * (2 / 3))
    self.assertLess(np.abs(counts[[0, 2, 3]] - 100).max(), 5 * error)


class SimilarityTest(parameterized.TestCase):

  def test_ssim_equals_sums_over_windows(self):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 13))
    y = 0.5 * x + rng.normal(size=(14, 13))
    offsets = np.arange(-5, 6)
    window = np.exp(-offsets**2 / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    padded = [
      np.pad((1 + z / np.abs(z).max()) / 2, 5, mode='symmetric') for z in (x, y)
    ]
    values = []
    for i in range(14):
      for j in range(13):
        a, b = (z[i:i + 11, j:j + 11] for z in padded)
        ma, mb = (window * a).sum(), (window * b).sum()
        va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
        vab = (window * (a - ma) * (b - mb)).sum()
        values.append(
          (2 * ma * mb + 0.0001) * (2 * vab + 0.0009)
          / ((ma**2 + mb**2 + 0.0001) * (va + vb + 0.0009))
        )
    np.testing.assert_allclose(
      similarity.ssim(x[None], y[None]), [np.mean(values)], rtol=1e-10
    )

  def test_scale_does_not_matter_and_sign_does(self):
    x = np.random.default_rng(0).normal(size=(2, 12, 12))
    np.testing.assert_allclose(similarity.ssim(x, 30 * x), 1)
    self.assertLess(similarity.ssim(x, -x).max(), 0)
    found = similarity.compare(x, -x)
    np.testing.assert_allclose(found.spearman, -1)
    np.testing.assert_allclose(found.absolute_spearman, 1)
