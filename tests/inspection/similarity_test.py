import itertools

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from jaxsens.inspection import similarity


def _slow_cka(x, y, unbiased):
  """Gram matrices and sums over pairs, as Székely and Rizzo write them."""
  n = len(x)
  grams = []
  for z in (x, y):
    k = z @ z.T
    if unbiased:
      np.fill_diagonal(k, 0)
      u = np.zeros((n, n))
      for i, j in itertools.permutations(range(n), 2):
        u[i, j] = (
          k[i, j] - k[i].sum() / (n - 2) - k[j].sum() / (n - 2)
          + k.sum() / ((n - 1) * (n - 2))
        )
    else:
      centring = np.eye(n) - 1 / n
      u = centring @ k @ centring
    grams.append(u)
  hsic = lambda a, b: sum(
    grams[a][i, j] * grams[b][i, j] for i in range(n) for j in range(n)
  )
  return hsic(0, 1) / np.sqrt(hsic(0, 0) * hsic(1, 1))


class SimilarityTest(parameterized.TestCase):

  @parameterized.product(
    unbiased=(False, True), widths=((3, 4), (3, 40), (50, 60))
  )
  def test_equals_the_slow_reference_in_both_forms(self, unbiased, widths):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, widths[0])) + 3
    y = rng.normal(size=(9, widths[1])) + x[:, :1]
    found = similarity.linear_cka(x, y, unbiased=unbiased)
    np.testing.assert_allclose(found, _slow_cka(x, y, unbiased), atol=1e-12)

  @parameterized.parameters(False, True)
  def test_rotated_scaled_and_shifted_features_are_the_same(self, unbiased):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 8)) * np.arange(1, 9)
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    found = similarity.linear_cka(x, -1e3 * x @ rotation + 7, unbiased=unbiased)
    np.testing.assert_allclose(found, 1, atol=1e-10)

  def test_independent_noise_is_unlike_in_the_unbiased_form_only(self):
    rng = np.random.default_rng(2)
    draw = lambda: rng.normal(size=(50, 400))
    unbiased, plain = np.array([
      [similarity.linear_cka(x, y, unbiased=u) for u in (True, False)]
      for x, y in ((draw(), draw()) for _ in range(40))
    ]).T
    error = unbiased.std(ddof=1) / np.sqrt(40)
    self.assertLess(abs(unbiased.mean()), 5 * error)
    # A correlation over n (n - 3) / 2 pairs.
    self.assertLess(np.abs(unbiased).max(), 5 / np.sqrt(50 * 47 / 2))
    # More features than images: all noise looks alike.
    self.assertGreater(plain.min(), 0.8)

  def test_matrix_is_that_of_the_pairs(self):
    rng = np.random.default_rng(3)
    base = rng.normal(size=(12, 5))
    first = {'a': base, 'b': base @ rng.normal(size=(5, 30))}
    second = {'c': base[:, :2], 'd': rng.normal(size=(12, 3)), 'e': base}
    found = similarity.cka_matrix(first, second)
    expected = [
      [similarity.linear_cka(x, y) for y in second.values()]
      for x in first.values()
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    own = similarity.cka_matrix(second)
    np.testing.assert_allclose(np.diag(own), 1, atol=1e-12)
    np.testing.assert_array_equal(own, own.T)

  def test_huge_and_tiny_features_stay_exact(self):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 10, 4))
    expected = similarity.linear_cka(x, y)
    found = similarity.linear_cka(1e200 * x, 1e-200 * y)
    np.testing.assert_allclose(found, expected, rtol=1e-9)

  @parameterized.parameters(
    (np.ones((9, 3)), "'y' are the same for all images"),
    (np.zeros((8, 3)), "'y' are the same for all images"),
    (np.arange(24.0).reshape(8, 3), 'same images'),
    (np.arange(9.0), r'\(N, D\)'),
    (np.eye(3), 'at least 4 images'),
    (np.full((9, 3), np.nan), "'y' hold NaN"),
  )
  def test_bad_input_is_named(self, y, message):
    x = np.random.default_rng(0).normal(size=(9, 4))
    with self.assertRaisesRegex(ValueError, message):
      similarity.linear_cka(x, y)


if __name__ == '__main__':
  absltest.main()
