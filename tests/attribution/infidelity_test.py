"""Infidelity and largest sensitivity."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import infidelity
from jaxsens.attribution import maps
from tests.oracles import linear_scores

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _gradient(classifier, images, targets):
  return maps.scores_and_gradients(
    classifier, images, targets, quantity='logit'
  )[1]


def _mlp(params, images):
  flat = images.reshape(images.shape[0], -1)
  return jnp.tanh(flat @ params['first']) @ params['second']


class InfidelityTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.linear = linear_scores.classifier(jax.random.key(3))
    self.images = linear_scores.images(3)
    self.targets = np.array([2, 0, 1])
    self.exact = linear_scores.gradients(self.linear, self.targets)

  def _found(self, values, **options):
    return infidelity.infidelity(
      jax.random.key(1), self.linear, self.images, values, self.targets,
      **options,
    ).values

  @parameterized.parameters(
    infidelity.GaussianNoise(0.1), infidelity.NoisyBaseline(0.5, 0.1),
    infidelity.SquareRemoval(4),
  )
  def test_gradient_of_a_linear_model_has_none(self, perturb):
    with jax.enable_x64(True):
      self.images = self.images.astype(np.float64)
      params = jax.tree.map(
        lambda x: np.asarray(x, np.float64), self.linear.params
      )
      self.linear = classifiers.Classifier(
        self.linear.apply_fn, params, self.linear.preprocess,
        self.linear.class_names, self.linear.image_size, self.linear.channels,
      )
      found = self._found(self.exact.astype(np.float64), perturb=perturb)
      wrong = self._found(2 * self.exact, perturb=perturb)
    np.testing.assert_allclose(found, 0, atol=1e-22)
    self.assertGreater(wrong.min(), 1e-4)

  def test_attribution_of_zero_has_the_mean_square_drop(self):
    # Var of Σ gradient · noise is |gradient|² std²; 5 standard errors of a mean
    # of squares of S normals.
    number, std = 400, 0.1
    found = self._found(
      0 * self.exact, perturb=infidelity.GaussianNoise(std), num_samples=number
    )
    expected = (self.exact**2).sum((1, 2, 3)) * std**2
    np.testing.assert_allclose(
      found, expected, rtol=5 * np.sqrt(2 / number)
    )

  def test_normalised_infidelity_knows_no_scale(self):
    noisy = self.exact + np.random.default_rng(0).normal(size=self.exact.shape)
    plain, scaled = (
      self._found(s * noisy, normalise=True) for s in (1, -7.0)
    )
    np.testing.assert_allclose(plain, scaled, rtol=1e-4)
    self.assertTrue((plain <= self._found(noisy) + 1e-6).all())
    # Nothing to scale: all of the drop is left.
    zero = 0 * self.exact
    np.testing.assert_allclose(
      self._found(zero, normalise=True), self._found(zero)
    )

  def test_gradient_times_input_is_told_its_baseline(self):
    baseline = np.float32(0.25)
    found = self._found(
      self.exact * (self.images - baseline), baselines=baseline
    )
    np.testing.assert_allclose(found, 0, atol=1e-9)

  def test_squares_lie_within_the_image_and_become_black(self):
    image = jnp.ones((6, 9, 2))
    keys = jax.random.split(jax.random.key(0), 40)
    taken = jax.vmap(infidelity.SquareRemoval(4), (0, None))(keys, image)
    np.testing.assert_array_equal(taken.sum((1, 2, 3)), 4 * 4 * 2)
    # Every place within the image, its corners among them.
    np.testing.assert_array_equal(taken.max(0), 1)

  @parameterized.parameters(False, True)
  def test_captum_agrees_with_the_same_perturbations(self, normalise):
    torch = pytest.importorskip('torch', reason='captum needs torch')
    metrics = pytest.importorskip(
      'captum.metrics', reason='captum is the oracle here'
    )
    with jax.enable_x64(True):
      rng = np.random.default_rng(0)
      params = {'first': rng.normal(size=(48, 5)),
                'second': rng.normal(size=(5, 3))}
      classifier = classifiers.Classifier(
        _mlp, params, classifiers.identity, ('a', 'b', 'c'), (4, 4), 3
      )
      images = rng.random((3, 4, 4, 3))
      changes = 0.1 * rng.normal(size=(3, 7, 4, 4, 3))
      values = _gradient(classifier, images, self.targets)
      found = infidelity.infidelity(
        None, classifier, images, values, self.targets, perturbations=changes,
        normalise=normalise, chunk_size=2,
      ).values
      sensitivity = infidelity.sensitivity_max(
        None, classifier, images, _gradient, self.targets,
        perturbations=changes, chunk_size=2,
      ).values
    first, second = (torch.tensor(params[k]) for k in ('first', 'second'))
    forward = lambda x: torch.tanh(x.reshape(len(x), -1) @ first) @ second
    x = torch.tensor(images)
    flat = torch.tensor(changes.reshape(21, 4, 4, 3))
    targets = torch.tensor(self.targets)
    expected = metrics.infidelity(
      forward, lambda inputs: (flat, inputs - flat), x,
      torch.tensor(np.asarray(values)), target=targets, n_perturb_samples=7,
      normalize=normalise,
    )
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-10)

    def explain(inputs, target):
      with torch.enable_grad():
        inputs = (
          inputs[0] if isinstance(inputs, tuple) else inputs
        ).detach().requires_grad_()
        chosen = forward(inputs).gather(1, target[:, None]).sum()
        return (torch.autograd.grad(chosen, inputs)[0],)

    expected = metrics.sensitivity_max(
      explain, x, lambda inputs, radius: (inputs[0] if isinstance(
        inputs, tuple) else inputs) + flat,
      n_perturb_samples=7, target=targets,
    )
    np.testing.assert_allclose(sensitivity, expected.numpy(), rtol=1e-10)

  def test_draws_do_not_depend_on_the_size_of_chunks(self):
    rng = np.random.default_rng(0)
    params = {'first': rng.normal(size=(243, 5)).astype(np.float32) / 9,
              'second': rng.normal(size=(5, 3)).astype(np.float32)}
    classifier = classifiers.Classifier(
      _mlp, params, classifiers.identity, ('a', 'b', 'c'), (9, 9), 3
    )
    whole, parts, alone = (
      (
        infidelity.sensitivity_max(
          jax.random.key(0), classifier, self.images[:number], _gradient, 1,
          chunk_size=size, num_samples=3,
        ).values,
        infidelity.infidelity(
          jax.random.key(0), classifier, self.images[:number],
          self.exact[:number], 1, chunk_size=size, num_samples=3,
        ).values,
      )
      for number, size in ((3, 3), (3, 2), (1, 1))
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-4)
    np.testing.assert_allclose(np.array(whole)[:, :1], alone, rtol=1e-4)

  def test_gradient_of_a_linear_model_never_moves(self):
    found = infidelity.sensitivity_max(
      jax.random.key(0), self.linear, self.images, _gradient, self.targets
    )
    np.testing.assert_array_equal(found.values, 0)

  def test_image_itself_moves_as_far_as_it_is_moved(self):
    found = infidelity.sensitivity_max(
      jax.random.key(0), self.linear, self.images,
      lambda classifier, images, targets: images, radius=0.1, num_samples=4,
    ).values
    sizes = np.linalg.norm(self.images.reshape(3, -1), axis=1)
    # Σ r² of n uniforms in ±0.1 has mean n/300.
    np.testing.assert_allclose(
      found * sizes, np.sqrt(243 / 300), rtol=0.2
    )

  def test_bad_input_is_named(self):
    with self.assertRaisesRegex(ValueError, r'\(3, 9, 9, 3\), got \(3, 9, 9\)'):
      self._found(self.exact.sum(-1))
    with self.assertRaisesRegex(ValueError, r'\(3, S, 9, 9, 3\)'):
      self._found(self.exact, perturbations=np.zeros((2, 4, 9, 9, 3)))
    with self.assertRaisesRegex(ValueError, 'perturbations must be given'):
      infidelity.infidelity(None, self.linear, self.images, self.exact)
    broken = self.exact.copy()
    broken[1, 0, 0, 0] = np.inf
    with self.assertRaisesRegex(ValueError, r'images \[1\]'):
      self._found(broken)
    with self.assertRaisesRegex(ValueError, 'radius'):
      infidelity.sensitivity_max(
        jax.random.key(0), self.linear, self.images, _gradient, radius=0
      )
