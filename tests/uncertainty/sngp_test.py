import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import linear_model
from sklearn import metrics

from jaxsens.uncertainty import sngp


def _data(count=40, dim=3, seed=0):
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % 3
  return rng.normal(size=(count, dim)) + 2 * np.eye(3, dim)[labels], labels


def _fit(**options):
  features, labels = _data()
  settings = dict(num_features=64, length_scale=0.7, ridge=0.5) | options
  return sngp.fit(jax.random.key(0), features, labels, 3, **settings)


def test_random_features_give_the_kernel():
  features, _ = _data()
  with jax.enable_x64(True):
    found = _fit(num_features=1000)
    phi = np.asarray(found.random_features(jnp.asarray(features)))
  apart = features[:, None] - features[None]
  squared = np.sum(apart**2, axis=-1)
  scale = 0.7 * np.sqrt(np.sum(squared) / 40**2)
  expected = np.exp(-squared / (2 * scale**2))
  # Each is a mean of 1000 terms of variance at most 1 (and of the diagonal's
  # 1/2), five standard errors.
  np.testing.assert_allclose(phi @ phi.T, expected, atol=5 / np.sqrt(1000))


def test_variance_equals_that_of_the_dual_ridge_posterior():
  """Woodbury: k(x,x)/r - k(x,X) (K + r I)^-1 k(X,x) / r."""
  features, _ = _data()
  new = _data(seed=1)[0]
  with jax.enable_x64(True):
    found = _fit()
    phi, phi_new = (
      np.asarray(found.random_features(jnp.asarray(x)))
      for x in (features, new)
    )
    variance = found.variance(jnp.asarray(new))
  ridge = 0.5
  cross = phi_new @ phi.T
  inner = np.linalg.solve(phi @ phi.T + ridge * np.eye(40), cross.T)
  expected = (np.sum(phi_new**2, 1) - np.sum(cross * inner.T, 1)) / ridge
  np.testing.assert_allclose(variance[:, 0], expected, rtol=1e-8)


def test_laplace_covariance_is_the_inverse_block_of_the_hessian():
  features, labels = _data()
  new = _data(seed=1)[0]
  with jax.enable_x64(True):
    found = _fit(num_features=10, likelihood='laplace')
    phi = found.random_features(jnp.asarray(features))
    phi_new = np.asarray(found.random_features(jnp.asarray(new)))
    variance = found.variance(jnp.asarray(new))

    def objective(beta):
      logs = jax.nn.log_softmax(phi @ beta)
      fit = -jnp.sum(logs[jnp.arange(40), labels])
      return fit + 0.25 * jnp.sum(beta**2)

    hessian = np.asarray(jax.hessian(objective)(found.coefficients))
    slope = np.asarray(jax.grad(objective)(found.coefficients))
  np.testing.assert_allclose(slope, 0, atol=1e-4)
  for k in range(3):
    block = hessian[:, k, :, k]
    expected = np.sum(phi_new * np.linalg.solve(block, phi_new.T).T, axis=1)
    np.testing.assert_allclose(variance[:, k], expected, rtol=1e-6)


def test_softmax_regression_equals_scikit_learns():
  rng = np.random.default_rng(0)
  inputs, labels = rng.normal(size=(50, 4)), np.arange(50) % 3
  found = sngp.fit_softmax(inputs, labels, 3, ridge=0.5)
  peer = linear_model.LogisticRegression(
    C=2.0, fit_intercept=False, tol=1e-10, max_iter=5000
  ).fit(inputs, labels)
  np.testing.assert_allclose(found, peer.coef_.T, atol=1e-5)


@pytest.mark.parametrize('likelihood', ['gaussian', 'laplace'])
def test_far_from_the_data_certainty_is_lost(likelihood):
  found = _fit(num_features=512, likelihood=likelihood)
  near, far = np.float32(_data()[0]), np.float32(_data()[0] + 40)
  assert np.max(found.variance(near)) < np.min(found.variance(far))
  assert np.min(found.negative_variance(near)) > np.max(
    found.negative_variance(far)
  )
  # The prior's is 1 / ridge = 2; |phi|² is 1 +- 5 sqrt(1 / 2 / 512).
  np.testing.assert_allclose(np.mean(found.variance(far)), 2, rtol=0.2)


def test_mean_field_is_near_the_mean_over_the_posterior():
  """Of two classes: the mean of sigmoid(N(m, v)), within 0.02."""
  rng = np.random.default_rng(0)
  for mean, variance in ((0.5, 1.0), (2.0, 4.0), (-1.0, 9.0)):
    draws = mean + np.sqrt(variance) * rng.normal(size=200_000)
    exact = np.mean(1 / (1 + np.exp(-draws)))
    logit = mean / np.sqrt(1 + np.pi / 8 * variance)
    assert abs(1 / (1 + np.exp(-logit)) - exact) < 0.02
  found = _fit()
  x = np.float32(_data()[0])
  np.testing.assert_allclose(
    found.mean_field(x),
    found.logits(x) / np.sqrt(1 + np.pi / 8 * found.variance(x)), rtol=1e-5,
  )


def test_head_is_a_pytree_and_answers_under_jit_in_float32():
  found = _fit()
  x = np.float32(_data()[0])
  logits = jax.jit(lambda head, x: head.mean_field(x))(found, x)
  assert logits.dtype == np.float32
  np.testing.assert_allclose(logits, found.mean_field(x), rtol=1e-4, atol=1e-5)
  assert np.mean(np.argmax(logits, 1) == _data()[1]) > 0.8


def test_chosen_pair_has_the_likeliest_held_out_labels():
  features, labels = _data(60)
  held_out, held_out_labels = _data(45, seed=1)
  candidates = ((0.02, 1.0), (0.7, 0.1), (0.7, 300.0), (5.0, 1.0))
  chosen = sngp.choose(
    jax.random.key(0), features, labels, 3, held_out, held_out_labels,
    num_features=64, candidates=candidates,
  )
  losses = []
  for length_scale, ridge in candidates:
    head = sngp.fit(
      jax.random.key(0), features, labels, 3, num_features=64,
      length_scale=length_scale, ridge=ridge,
    )
    logits = np.asarray(head.mean_field(np.float32(held_out)), np.float64)
    losses.append(
      metrics.log_loss(held_out_labels, special.softmax(logits, axis=1))
    )
  assert chosen == candidates[int(np.argmin(losses))]
  # A kernel that sees nothing, and a prior that allows nothing, know less.
  assert chosen == (0.7, 0.1)
  with pytest.raises(ValueError, match='candidates must not be empty'):
    sngp.choose(
      jax.random.key(0), features, labels, 3, held_out, held_out_labels,
      num_features=8, candidates=(),
    )


@pytest.mark.parametrize('options, message', [
  (dict(ridge=0.0), 'must be positive'),
  (dict(length_scale=-1.0), 'must be positive'),
  (dict(likelihood='probit'), "'gaussian' or 'laplace'"),
])
def test_bad_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    _fit(**options)


@pytest.mark.parametrize('features, labels, message', [
  (np.full((4, 2), np.nan), np.arange(4) % 3, '4 of 4 images'),
  (np.zeros((4, 2)), np.arange(4) % 3, 'differ'),
  (np.eye(4), np.arange(4), r'0\.\.2'),
  (np.eye(4), np.arange(3), r'\(N, D\)'),
])
def test_bad_data_are_named(features, labels, message):
  with pytest.raises(ValueError, match=message):
    sngp.fit(
      jax.random.key(0), features, labels, 3, num_features=4, length_scale=1.0,
      ridge=1.0,
    )
