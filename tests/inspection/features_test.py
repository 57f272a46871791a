from absl.testing import absltest
from absl.testing import parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import taps
from jaxsens.inspection import features
from jaxsens.models import registry
from tests.oracles import small_networks

_KEY = jax.random.key(3)

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _case(number=5):
  images = np.random.default_rng(0).uniform(size=(number, 8, 8, 3))
  return small_networks.classifier(jax.random.key(0)), images.astype('f')


class FeaturesTest(parameterized.TestCase):

  def test_rows_are_the_activations_whatever_the_chunk(self):
    classifier, images = _case()
    names = ('input', 'stem', 'second', 'head', 'logits')
    logits, said = taps.apply(classifier, jnp.asarray(images), names[1:4])
    expected = {'input': images, **said, 'logits': logits}
    for size in (2, 5, 64):
      found = features.extract(
        _KEY, classifier, images, names, chunk_size=size
      )
      self.assertEqual(tuple(found), names)
      for name in names:
        np.testing.assert_allclose(
          found[name], np.reshape(expected[name], (5, -1)), atol=1e-6
        )

  @parameterized.parameters(('mean', np.mean), ('max', np.max))
  def test_channels_are_reduced_over_pixels(self, reduce, by_hand):
    classifier, images = _case()
    found = features.extract(
      _KEY, classifier, images, ['input', 'stem', 'logits'], reduce=reduce,
      chunk_size=2,
    )
    _, said = taps.apply(classifier, jnp.asarray(images), ['stem'])
    np.testing.assert_allclose(
      found['stem'], by_hand(np.asarray(said['stem']), (1, 2)), atol=1e-6
    )
    np.testing.assert_allclose(
      found['input'], by_hand(images, (1, 2)), atol=1e-6
    )
    self.assertEqual(found['logits'].shape, (5, 4))

  def test_sketch_keeps_distances_within_its_error(self):
    classifier, images = _case(40)
    whole = features.extract(_KEY, classifier, images, ['stem'])['stem']
    self.assertEqual(whole.shape, (40, 8 * 8 * 6))
    distances = lambda x: np.square(x[:, None] - x[None]).sum(-1)
    expected = distances(whole)
    off = ~np.eye(40, dtype=bool)
    ratios = []
    for seed in range(20):
      key = jax.random.key(seed)
      thin = features.extract(key, classifier, images, ['stem'], limit=64)
      self.assertEqual(thin['stem'].shape, (40, 64))
      ratios.append((distances(thin['stem'])[off] / expected[off]).mean())
    # Unbiased; one sketch errs by about sqrt(2 / 64).
    error = np.std(ratios, ddof=1) / np.sqrt(20)
    self.assertLess(abs(np.mean(ratios) - 1), 5 * error)
    self.assertLess(np.std(ratios), np.sqrt(2 / 64))

  def test_sketch_is_the_same_for_every_set_and_linear(self):
    classifier, images = _case(6)
    make = lambda x, size: features.extract(
      _KEY, classifier, x, ['input'], limit=16, chunk_size=size
    )['input']
    together = make(images, 4)
    np.testing.assert_allclose(
      np.concatenate([make(images[:2], 1), make(images[2:], 3)]), together,
      atol=1e-5,
    )
    np.testing.assert_allclose(
      make((images[:1] + images[1:2]) / 2, 1)[0], together[:2].mean(0),
      atol=1e-5,
    )

  def test_pixels_are_a_choice_of_whole_pixels(self):
    classifier, images = _case()
    found = features.extract(
      _KEY, classifier, images, ['input'], limit=20, thinning='pixels'
    )['input'].reshape(5, 6, 3)
    pixels = images.reshape(5, 64, 3)
    chosen = [
      np.flatnonzero((pixels[0] == one).all(-1))[0] for one in found[0]
    ]
    self.assertLen(set(chosen), 6)
    np.testing.assert_array_equal(found, pixels[:, chosen])

  def test_outline_of_resnet18_is_stem_and_blocks(self):
    model = nnx.eval_shape(
      lambda: registry.create('resnet18', jax.random.key(0), 6, in_channels=1)
    )
    classifier = classifiers.from_flax(
      model, preprocess=classifiers.identity, class_names=tuple('abcdef'),
      image_size=(32, 32), channels=1,
    )
    blocks = [f'layer{i}.{j}' for i in (1, 2, 3, 4) for j in (0, 1)]
    self.assertEqual(features.outline(classifier, 99), ('conv1', *blocks))
    self.assertEqual(
      features.outline(classifier, 3), ('conv1', 'layer2.1', 'layer4.1')
    )

  @parameterized.parameters(
    (dict(names=['stemm']), 'no layer .stemm.; next to it are .*stem'),
    (dict(names=[]), 'no layer is asked for'),
    (dict(reduce='sum'), 'reduce must be one of'),
    (dict(thinning='some'), 'thinning must be one of'),
    (dict(limit=0), 'limit must be at least 1'),
    (dict(chunk_size=0), 'chunk_size must be at least 1'),
    (dict(images=np.zeros((2, 8, 9, 3))), 'images must have shape'),
  )
  def test_bad_input_is_named(self, changed, message):
    classifier, images = _case()
    options = dict(images=images, names=['stem']) | changed
    with self.assertRaisesRegex(ValueError, message):
      features.extract(_KEY, classifier, **options)

  def test_layer_that_says_nan_is_named(self):
    classifier, images = _case()
    broken = jax.tree.map(lambda x: x, classifier.params)
    broken['second']['kernel'] = jax.tree.map(
      lambda x: x * jnp.nan, broken['second']['kernel']
    )
    classifier = classifiers.Classifier(
      classifier.apply_fn, broken, classifier.preprocess,
      classifier.class_names, classifier.image_size, classifier.channels,
    )
    with self.assertRaisesRegex(FloatingPointError, "'second' says NaN"):
      features.extract(_KEY, classifier, images, ['stem', 'second'])


if __name__ == '__main__':
  absltest.main()
