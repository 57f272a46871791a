from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from jaxsens.inspection import probes

_KEY = jax.random.key(1)


def _separable(rng, number):
  labels = rng.integers(3, size=number)
  x = rng.normal(size=(number, 20))
  x[:, :3] += 20 * np.eye(3)[labels]
  return x, labels


class ProbesTest(parameterized.TestCase):

  def test_separable_classes_are_told_apart(self):
    rng = np.random.default_rng(0)
    found = probes.fit(_KEY, *_separable(rng, 60), *_separable(rng, 80))
    self.assertEqual(found.accuracy, 1)
    self.assertEqual((found.lower, found.upper), (1, 1))
    self.assertTrue(found.converged)
    self.assertEqual((found.num_train, found.num_test), (60, 80))

  def test_random_labels_are_at_chance_on_held_out_images_only(self):
    rng = np.random.default_rng(1)
    number = 400
    x, y = (rng.normal(size=(number, 500)) for _ in range(2))
    labels = rng.integers(2, size=(2, number))
    found = probes.fit(_KEY, x, labels[0], y, labels[1], num_samples=400)
    error = np.sqrt(0.25 / number)
    self.assertLess(abs(found.accuracy - 0.5), 5 * error)
    # The width of the binomial's interval, within its own noise.
    width = (found.upper - found.lower) / (2 * 1.96 * error)
    self.assertBetween(width, 0.8, 1.2)
    self.assertGreater(found.training_accuracy, 0.9)

  def test_majority_is_that_of_the_training_part(self):
    rng = np.random.default_rng(2)
    found = probes.fit(
      _KEY, rng.normal(size=(10, 3)), np.repeat([4, 7], [3, 7]),
      rng.normal(size=(8, 3)), np.repeat([4, 7], [6, 2]), num_samples=10,
    )
    self.assertEqual(found.majority, 0.25)

  def test_components_keep_the_share_of_the_variance(self):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 4)) * [10, 1, 0.1, 0.1]
    labels = rng.integers(2, size=200)
    count = lambda share: probes.fit(
      _KEY, x, labels, x, labels, explained_variance=share, num_samples=10
    ).num_components
    self.assertEqual([count(0.95), count(0.995), count(0.99999)], [1, 2, 4])

  def test_solver_that_stops_early_is_reported(self):
    rng = np.random.default_rng(4)
    part = _separable(rng, 60)
    found = probes.fit(_KEY, *part, *part, max_iterations=1, num_samples=10)
    self.assertFalse(found.converged)
    self.assertEqual(found.num_iterations, 1)

  def test_split_shares_out_every_class_and_no_recording_twice(self):
    labels = np.repeat([0, 1, 5], [20, 10, 2])
    train, test = probes.split(_KEY, labels, test_fraction=0.3)
    self.assertEqual(sorted([*train, *test]), list(range(32)))
    np.testing.assert_array_equal(
      np.bincount(labels[test], minlength=6), [6, 3, 0, 0, 0, 1]
    )
    groups = np.arange(32) // 2
    train, test = probes.split(
      _KEY, labels[:30], test_fraction=0.3, groups=groups[:30]
    )
    self.assertEmpty(set(groups[train]) & set(groups[test]))
    again = probes.split(
      _KEY, labels[:30], test_fraction=0.3, groups=groups[:30]
    )
    np.testing.assert_array_equal(test, again[1])

  def test_class_of_one_image_cannot_be_split(self):
    with self.assertRaisesRegex(ValueError, 'class 2 has 1 images'):
      probes.split(_KEY, [0, 0, 1, 1, 2], test_fraction=0.5)
    with self.assertRaisesRegex(ValueError, 'class 1 has 1 recordings'):
      probes.split(
        _KEY, [0, 0, 1, 1], test_fraction=0.5, groups=['a', 'b', 'c', 'c']
      )

  @parameterized.parameters(
    (dict(train_labels=np.zeros(6, int)), 'two classes, got .0.'),
    (dict(train_labels=np.zeros(5, int)), r'train_labels \(N,\)'),
    (dict(train_features=np.ones((6, 4))), 'same for all images'),
    (dict(train_features=np.full((6, 4), np.nan)), 'NaN'),
    (dict(test_features=np.ones((2, 3))), 'same numbers per image'),
    (dict(test_features=np.ones((0, 4)), test_labels=[]), 'no image'),
    (dict(explained_variance=1.0), 'explained_variance must be'),
  )
  def test_bad_input_is_named(self, changed, message):
    rng = np.random.default_rng(0)
    options = dict(
      train_features=rng.normal(size=(6, 4)), train_labels=[0, 1] * 3,
      test_features=rng.normal(size=(2, 4)), test_labels=[0, 1],
    ) | changed
    with self.assertRaisesRegex(ValueError, message):
      probes.fit(_KEY, **options)


if __name__ == '__main__':
  absltest.main()
