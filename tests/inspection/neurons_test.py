from absl.testing import absltest
from absl.testing import parameterized
from flax import nnx
import jax
from jax import test_util
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import taps
from jaxsens.inspection import ascent
from jaxsens.inspection import neurons
from tests.oracles import linear_network
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

_KEY = jax.random.key(7)
_SHAPE = (4, 5, 2)


def _linear():
  kernel = np.random.default_rng(0).normal(size=(40, 3)).astype('f')
  return kernel, linear_network.classifier(kernel, _SHAPE)


class NeuronsTest(parameterized.TestCase):

  @parameterized.parameters('adam', 'sgd')
  def test_box_projection_of_a_linear_model_ends_at_the_signs(self, optimizer):
    kernel, classifier = _linear()
    found = neurons.maximise(
      _KEY, classifier, 'logits', (2, 0),
      settings=ascent.Settings(
        num_steps=400, learning_rate=0.5, optimizer=optimizer,
        limits=(0.25, 0.75),
      ),
    )
    for i, channel in enumerate((2, 0)):
      weights = kernel[:, channel]
      np.testing.assert_array_equal(
        found.images[i].ravel(), np.where(weights > 0, 0.75, 0.25)
      )
      np.testing.assert_allclose(
        found.activations[i], 0.5 * weights.sum() + 0.25 * abs(weights).sum(),
        rtol=1e-5,
      )

  def test_steps_of_plain_ascent_are_the_gradient_and_do_not_add_up(self):
    kernel, classifier = _linear()
    found = neurons.maximise(
      _KEY, classifier, 'logits', (1,), start='gray',
      settings=ascent.Settings(
        num_steps=6, learning_rate=0.1, optimizer='sgd', limits=None
      ),
    )
    weights = kernel[:, 1].astype(np.float64)
    np.testing.assert_allclose(
      found.images[0].ravel(), 0.5 + 0.6 * weights, rtol=1e-5
    )
    # Each step gains the same: a gradient that is kept would gain ever more.
    np.testing.assert_allclose(
      found.courses[0],
      0.5 * weights.sum() + 0.1 * np.arange(6) * (weights @ weights),
      rtol=1e-5,
    )
    np.testing.assert_allclose(found.starts[0], 0.5 * weights.sum(), rtol=1e-5)

  def test_gradient_is_shortened_to_the_clip_norm(self):
    kernel, classifier = _linear()
    weights = kernel[:, 1] / np.linalg.norm(kernel[:, 1])
    found = neurons.maximise(
      _KEY, classifier, 'logits', (1,), start='gray',
      settings=ascent.Settings(
        num_steps=3, learning_rate=0.1, optimizer='sgd', limits=None,
        clip_norm=0.5,
      ),
    )
    np.testing.assert_allclose(
      found.images[0].ravel(), 0.5 + 3 * 0.1 * 0.5 * weights, rtol=1e-4
    )

  def test_square_penalty_of_a_linear_model_has_its_closed_form(self):
    kernel, classifier = _linear()
    found = neurons.maximise(
      _KEY, classifier, 'logits', (0,),
      settings=ascent.Settings(
        num_steps=300, learning_rate=0.1, optimizer='sgd', limits=None, l2=40.0
      ),
    )
    # Zero of w - 2 l2 (x - 1/2) / size.
    np.testing.assert_allclose(
      found.images[0].ravel(), 0.5 + kernel[:, 0] / 2, atol=1e-4
    )

  def test_neuron_stops_at_its_value_and_the_others_go_on(self):
    kernel, classifier = _linear()
    start = 0.5 * kernel.sum(0)
    gain = 0.01 * np.square(kernel).sum(0)
    stop = float(start[1] + 3.5 * gain[1])
    found = neurons.maximise(
      _KEY, classifier, 'logits', (0, 1, 2), start='gray',
      settings=ascent.Settings(
        num_steps=30, learning_rate=0.01, optimizer='sgd', limits=None,
        stop=stop,
      ),
    )
    expected = np.clip(np.ceil((stop - start) / gain), 0, 30)
    np.testing.assert_array_equal(found.num_steps, expected)
    self.assertEqual(found.num_steps[1], 4)
    self.assertTrue(found.stopped[1])
    np.testing.assert_array_equal(
      found.stopped, start + found.num_steps * gain >= stop
    )
    self.assertTrue(np.isnan(found.courses[1, 5:]).all())

  def test_total_variation_is_that_of_steps_and_has_its_gradient(self):
    image = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 2)), 'f')
    x = np.asarray(image)
    by_hand = sum(
      abs(x[i + 1, j, c] - x[i, j, c])
      for i in range(2) for j in range(4) for c in range(2)
    ) + sum(
      abs(x[i, j + 1, c] - x[i, j, c])
      for i in range(3) for j in range(3) for c in range(2)
    )
    np.testing.assert_allclose(
      ascent.total_variation(image), by_hand / 24, rtol=1e-6
    )
    test_util.check_grads(
      ascent.total_variation, (image,), 1, modes=['rev'], eps=1e-3, atol=1e-2,
      rtol=1e-2,
    )
    self.assertEqual(ascent.total_variation(jnp.full((3, 3, 1), 0.7)), 0)

  @parameterized.parameters((None,), ((0.2, 0.9),))
  def test_fourier_basis_renders_the_start_and_stays_in_the_box(self, limits):
    _, classifier = _linear()
    start = np.random.default_rng(2).uniform(0.3, 0.8, _SHAPE).astype('f')
    settings = ascent.Settings(
      num_steps=40, basis='fourier', limits=limits, learning_rate=0.3
    )
    render, coefficients = ascent.parametrise(jnp.asarray(start), settings)
    np.testing.assert_allclose(render(coefficients), start, atol=1e-5)
    found = neurons.maximise(
      _KEY, classifier, 'logits', (0,), start=start, settings=settings
    )
    self.assertGreater(found.activations[0], found.starts[0] + 1)
    if limits:
      self.assertBetween(found.images.min(), *limits)
      self.assertBetween(found.images.max(), *limits)

  def test_channel_and_pixel_are_those_of_the_taps(self):
    classifier = small_networks.classifier(jax.random.key(0))
    for pixel in (None, (2, 3)):
      found = neurons.maximise(
        _KEY, classifier, 'stem', (4, 1), pixel=pixel,
        settings=ascent.Settings(num_steps=5, jitter=2, total_variation=0.01),
      )
      _, said = taps.apply(classifier, jnp.asarray(found.images), ['stem'])
      said = np.asarray(said['stem'])
      for i, channel in enumerate((4, 1)):
        y = said[i, ..., channel]
        np.testing.assert_allclose(
          found.activations[i], y.mean() if pixel is None else y[pixel],
          rtol=1e-4,
        )
      self.assertTrue((found.activations > found.starts).all())
      self.assertBetween(found.images.min(), 0, 1)

  def test_neurons_do_not_depend_on_their_company(self):
    classifier = small_networks.classifier(jax.random.key(0))
    run = lambda channels: neurons.maximise(
      _KEY, classifier, 'stem', channels,
      settings=ascent.Settings(num_steps=3, jitter=3),
    ).images
    np.testing.assert_allclose(run((5, 2))[1], run((2,))[0], atol=1e-5)

  def test_dead_neuron_is_named_and_not_nan(self):
    kernel = np.random.default_rng(0).normal(size=(40, 3)).astype('f')
    kernel[:, 1] = 0
    classifier = linear_network.classifier(kernel, _SHAPE)
    settings = ascent.Settings(num_steps=4, clip_norm=0.1)
    with self.assertRaisesRegex(ValueError, "'logits': .* channels 1 is zero"):
      neurons.maximise(_KEY, classifier, 'logits', (0, 1), settings=settings)
    found = neurons.maximise(
      _KEY, classifier, 'logits', (0, 1), settings=settings, start='gray',
      allow_dead=True,
    )
    np.testing.assert_array_equal(found.dead, [False, True])
    np.testing.assert_array_equal(found.num_steps, [4, 0])
    np.testing.assert_array_equal(found.images[1], 0.5)
    self.assertTrue(np.isfinite(found.images).all())

  def test_jitter_may_find_a_gradient_where_there_was_none(self):
    # Only one pixel counts, and only when it is shifted to the bright one.
    class Corner(nnx.Module):
      def __init__(self):
        self.head = nnx.Linear(1, 2, rngs=nnx.Rngs(0))

      def __call__(self, images):
        return self.head(jax.nn.relu(images[:, 0, 0] - 0.9))

    classifier = classifiers.from_flax(
      Corner(), preprocess=classifiers.identity, class_names=('a', 'b'),
      image_size=(3, 3), channels=1,
    )
    start = np.zeros((3, 3, 1), 'f')
    start[2, 2] = 1
    run = lambda jitter: neurons.maximise(
      _KEY, classifier, 'logits', (0, 1), start=start, allow_dead=True,
      settings=ascent.Settings(num_steps=60, jitter=jitter),
    )
    np.testing.assert_array_equal(run(0).num_steps, 0)
    self.assertTrue(run(0).dead.all())
    self.assertFalse(run(1).dead.any())

  def test_ascent_that_falls_off_a_cliff_is_taken_back(self):
    class Cliff(nnx.Module):
      def __init__(self):
        self.head = nnx.Linear(1, 2, rngs=nnx.Rngs(0))
        self.head.kernel[...] = jnp.ones((1, 2))

      def __call__(self, images):
        x = images.mean((1, 2))
        return self.head(jnp.where(x < 0.72, x, 0))

    classifier = classifiers.from_flax(
      Cliff(), preprocess=classifiers.identity, class_names=('a', 'b'),
      image_size=(3, 3), channels=1,
    )
    found = neurons.maximise(
      _KEY, classifier, 'logits', (0,), start='gray',
      settings=ascent.Settings(
        num_steps=20, learning_rate=0.45, optimizer='sgd'
      ),
    )
    # Steps of 0.05: 0.70 is the last before the cliff.
    np.testing.assert_allclose(found.activations, 0.7, rtol=1e-5)
    self.assertEqual(found.courses[0, -1], 0)

  def test_rectified_mean_is_that_of_the_positive_part(self):
    classifier = small_networks.classifier(jax.random.key(0))
    found = neurons.maximise(
      _KEY, classifier, 'stem', (0, 3), rectify=True,
      settings=ascent.Settings(num_steps=2),
    )
    _, said = taps.apply(classifier, jnp.asarray(found.images), ['stem'])
    positive = np.maximum(np.asarray(said['stem']), 0)
    np.testing.assert_allclose(
      found.activations,
      [positive[0, ..., 0].mean(), positive[1, ..., 3].mean()], rtol=1e-4,
    )

  def test_network_that_answers_nan_is_refused(self):
    kernel = np.full((40, 2), np.nan, 'f')
    with self.assertRaisesRegex(FloatingPointError, 'channels 0 is NaN'):
      neurons.maximise(
        _KEY, linear_network.classifier(kernel, _SHAPE), 'logits', (0,)
      )

  @parameterized.parameters(
    (dict(layer='heads'), "no layer 'heads'; next to it are head"),
    (dict(channels=(0, 3)), 'channels 0 to 2, got 3'),
    (dict(channels=()), 'got none'),
    (dict(pixel=(0, 0)), 'has no pixel'),
    (dict(start='white'), 'start must be one of'),
    (dict(start=np.zeros((4, 4, 2))), r'an image \(4, 5, 2\)'),
    (dict(start=np.full(_SHAPE, np.nan)), 'start holds NaN'),
  )
  def test_bad_input_is_named(self, changed, message):
    _, classifier = _linear()
    options = dict(layer='logits', channels=(0,)) | changed
    with self.assertRaisesRegex(ValueError, message):
      neurons.maximise(_KEY, classifier, **options)

  @parameterized.parameters(
    (dict(num_steps=0), 'num_steps must be at least 1'),
    (dict(learning_rate=np.nan), 'learning_rate positive'),
    (dict(optimizer='lbfgs'), 'optimizer must be one of'),
    (dict(basis='wavelet'), 'basis must be one of'),
    (dict(limits=(1, 0)), r'limits must be \(lower, upper\)'),
    (dict(l2=-1.0), 'must not be negative'),
    (dict(clip_norm=0.0), 'clip_norm must be positive'),
  )
  def test_bad_settings_are_named(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      ascent.Settings(**options)


if __name__ == '__main__':
  absltest.main()
