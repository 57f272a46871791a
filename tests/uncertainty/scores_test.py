import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy import stats

from jaxsens.uncertainty import scores


def _logits(shape=(7, 5), seed=0):
  return 3 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_scores_equal_scipys_softmax_entropy_and_logsumexp():
  logits = _logits()
  p = special.softmax(logits.astype(np.float64), axis=1)
  np.testing.assert_allclose(
    scores.maximum_probability(logits), p.max(1), rtol=1e-5
  )
  np.testing.assert_allclose(
    scores.negative_entropy(logits), -stats.entropy(p, axis=1), rtol=1e-5
  )
  np.testing.assert_allclose(
    scores.negative_energy(logits, temperature=2.0),
    2 * special.logsumexp(logits / 2, axis=1), rtol=1e-5,
  )


def test_energy_grows_with_all_logits_and_probability_does_not():
  logits = _logits()
  more = logits + 5
  np.testing.assert_allclose(
    scores.negative_energy(more), scores.negative_energy(logits) + 5, rtol=1e-5
  )
  np.testing.assert_allclose(
    scores.maximum_probability(more), scores.maximum_probability(logits),
    rtol=1e-4,
  )


def test_samples_equal_the_entropies_of_the_mean_and_of_each():
  logits = _logits((4, 6, 3))
  found = scores.of_samples(logits)
  p = special.softmax(logits.astype(np.float64), axis=2)
  mean = p.mean(0)
  np.testing.assert_allclose(
    np.exp(found.log_probabilities), mean, rtol=1e-5
  )
  total = stats.entropy(mean, axis=1)
  np.testing.assert_allclose(found.negative_entropy, -total, rtol=1e-5)
  np.testing.assert_allclose(
    found.negative_mutual_information,
    stats.entropy(p, axis=2).mean(0) - total, rtol=1e-4,
  )


def test_equal_samples_do_not_disagree_and_opposite_ones_fully():
  logits = _logits((1, 6, 3))
  same = scores.of_samples(np.repeat(logits, 5, axis=0))
  np.testing.assert_allclose(same.negative_mutual_information, 0, atol=1e-6)
  np.testing.assert_allclose(
    same.log_probabilities, special.log_softmax(logits[0], axis=1), atol=1e-6
  )
  opposite = scores.of_samples(np.array([[[60.0, -60]], [[-60.0, 60]]]))
  np.testing.assert_allclose(
    opposite.negative_mutual_information, -np.log(2), rtol=1e-6
  )


def test_probabilities_of_zero_give_numbers():
  logits = np.array([[0.0, -np.inf, -np.inf], [1000.0, 0, -1000]])
  assert np.isfinite(scores.negative_entropy(logits)).all()
  found = scores.of_samples(np.stack([logits, logits[::-1]]))
  assert np.isfinite(found.negative_mutual_information).all()
  assert np.isfinite(found.negative_entropy).all()


@pytest.mark.parametrize('score', [
  scores.maximum_probability, scores.negative_entropy, scores.negative_energy,
])
def test_score_of_one_image_in_float64_under_jit_and_gradient(score):
  with jax.enable_x64(True):
    logits = jnp.asarray(_logits()[0], jnp.float64)
    value = jax.jit(score)(logits)
    assert value.dtype == jnp.float64 and value.shape == ()
    np.testing.assert_allclose(value, score(_logits())[0], rtol=1e-5)
    step = 1e-6 * jnp.eye(5)[2]
    slope = (score(logits + step) - score(logits - step)) / 2e-6
    np.testing.assert_allclose(jax.grad(score)(logits)[2], slope, rtol=1e-4)


def test_bad_input_is_named():
  with pytest.raises(ValueError, match='temperature'):
    scores.negative_energy(_logits(), temperature=0)
  with pytest.raises(ValueError, match=r'\(S, \.\.\., K\)'):
    scores.of_samples(np.zeros(3))
  with pytest.raises(ValueError, match='K >= 1'):
    scores.maximum_probability(np.zeros((3, 0)))
