import jax
import numpy as np
import pytest
from scipy import stats

from configs import pretrained_vs_random as config_module
from experiments import networks
from experiments import pretrained_vs_random
from experiments import train
from jaxsens.training import loop


def _run(init, seed, accuracy, correct):
  return pretrained_vs_random.Run(
    init, 1.0, seed, {'accuracy': accuracy}, np.array(correct, bool),
    {'tilt': accuracy / 2},
  )


def test_comparison_equals_scipys_paired_test_and_counts_by_hand():
  first = [_run('a', 0, 0.5, [1, 0, 0, 1]), _run('a', 1, 0.75, [1, 1, 0, 1])]
  second = [_run('b', 0, 1.0, [1, 1, 1, 1]), _run('b', 1, 0.5, [0, 1, 0, 1])]
  found = pretrained_vs_random.compare(first, second)
  accuracy = found['measures']['accuracy']
  assert accuracy['difference']['mean'] == pytest.approx(0.125)
  assert accuracy['p'] == pytest.approx(
    stats.ttest_rel([1.0, 0.5], [0.5, 0.75]).pvalue
  )
  # Seed 0: two images only the second knows; seed 1: one only the first.
  assert found['mcnemar'] == {
    'only_first': 1, 'only_second': 2, 'p': [0.5, 1.0]
  }
  assert found['totals']['tilt']['difference']['mean'] == pytest.approx(0.0625)
  with pytest.raises(ValueError, match='same seeds'):
    pretrained_vs_random.compare(first, second[::-1])


def test_equal_runs_have_no_p_value():
  runs = [_run('a', 0, 0.5, [1, 0]), _run('a', 1, 0.7, [1, 0])]
  found = pretrained_vs_random.compare(runs, runs)
  assert found['measures']['accuracy']['p'] is None
  assert found['mcnemar']['p'] == [1.0, 1.0]


def test_shares_of_the_images_are_stratified_and_nested():
  labels = np.repeat([0, 1, 2], [50, 20, 1])
  data = loop.LabelledImages(np.arange(71.0).reshape(71, 1, 1, 1), labels)
  key = jax.random.key(0)
  small, large = (train._part_of(key, data, f) for f in (0.2, 0.5))
  assert np.bincount(small.labels).tolist() == [10, 4, 1]
  assert np.bincount(large.labels).tolist() == [25, 10, 1]
  kept = lambda part: set(part.images.ravel().tolist())
  assert kept(small) < kept(large)
  assert train._part_of(key, data, 1.0) is data


def test_config_refuses_unknown_variants():
  with pytest.raises(ValueError, match="unknown variant 'tiny'"):
    config_module.get_config('tiny')


def test_random_networks_of_two_seeds_differ_and_guess():
  """Unlike the study in which the network without pretraining had it."""
  config = config_module.get_config('small')
  config.model.init = 'random'
  two = [
    networks.initial(jax.random.key(seed), config)[0] for seed in (0, 1)
  ]
  kernels = [np.asarray(n.conv1.kernel[...]) for n in two]
  assert np.abs(kernels[0] - kernels[1]).max() > 0.1
  rng = np.random.default_rng(0)
  images = rng.normal(size=(256, 32, 32, 1)).astype(np.float32)
  answers = np.asarray(jax.jit(lambda n, x: n(x))(two[0], images))
  counts = np.bincount(answers.argmax(1), minlength=6)
  labels = rng.integers(0, 6, 256)
  # Answers know nothing of labels: five standard errors around 1/6.
  share = np.mean(answers.argmax(1) == labels)
  assert abs(share - 1 / 6) < 5 * (5 / 36 / 256) ** 0.5 + 1e-9, counts
