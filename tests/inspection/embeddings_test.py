from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from sklearn import decomposition
from sklearn import manifold
from sklearn import model_selection
from sklearn import neighbors

from jaxsens.inspection import embeddings

_KEY = jax.random.key(5)


class EmbeddingsTest(parameterized.TestCase):

  def test_components_are_those_of_the_singular_vectors(self):
    x = np.random.default_rng(0).normal(size=(30, 7)) * np.arange(1, 8)
    found = embeddings.principal(x)
    left, values, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    np.testing.assert_allclose(
      np.abs(found.points), np.abs(left[:, :2] * values[:2]), atol=1e-10
    )
    np.testing.assert_allclose(
      found.explained, values[:2] ** 2 / np.sum(values**2)
    )

  def test_tsne_is_that_of_scikit_learn_after_the_components(self):
    x = np.random.default_rng(1).normal(size=(40, 60))
    found = embeddings.tsne(
      _KEY, x, perplexity=7, num_components=10, max_iterations=300
    )
    expected = manifold.TSNE(
      perplexity=7, max_iter=300, init='pca', learning_rate='auto',
      random_state=embeddings.random_state(_KEY),
    ).fit_transform(
      decomposition.PCA(10, svd_solver='full').fit_transform(x)
    )
    np.testing.assert_allclose(found.points, expected)
    self.assertEqual(found.perplexity, 7)

  def test_neighbour_accuracy_is_that_of_leave_one_out(self):
    rng = np.random.default_rng(2)
    labels = rng.integers(3, size=60) * 2
    points = rng.normal(size=(60, 2)) + labels[:, None]
    expected = model_selection.cross_val_score(
      neighbors.KNeighborsClassifier(5), points, labels,
      cv=model_selection.LeaveOneOut(),
    ).mean()
    found = embeddings.neighbour_accuracy(points, labels)
    self.assertBetween(expected, 0.5, 0.99)
    np.testing.assert_allclose(found, expected)

  def test_usual_perplexity_is_a_third_of_the_neighbours_up_to_thirty(self):
    self.assertEqual(embeddings.default_perplexity(10), 3)
    self.assertEqual(embeddings.default_perplexity(1000), 30)

  @parameterized.parameters(
    (dict(perplexity=11), 'below the 11 neighbours that each of 12 images'),
    (dict(perplexity=1.0), 'above 1'),
    (dict(perplexity=np.nan), 'perplexity must be'),
    (dict(features=np.ones((2, 5))), 'three images'),
    (dict(features=np.ones((12, 1))), 'two numbers'),
    (dict(features=np.ones((12, 5))), 'same for all'),
    (dict(features=np.full((12, 5), np.inf)), 'infinity'),
  )
  def test_bad_input_is_named(self, changed, message):
    x = np.random.default_rng(0).normal(size=(12, 5))
    with self.assertRaisesRegex(ValueError, message):
      embeddings.tsne(_KEY, **(dict(features=x) | changed))

  def test_points_that_cannot_vote_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'num_neighbours must be from 1'):
      embeddings.neighbour_accuracy(np.zeros((5, 2)), np.arange(5))
    with self.assertRaisesRegex(ValueError, 'points must be'):
      embeddings.neighbour_accuracy(np.zeros((9, 2)), np.arange(5))


if __name__ == '__main__':
  absltest.main()
