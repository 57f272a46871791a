"""Tests of the benchmark of networks."""

from absl.testing import absltest
import numpy as np

from experiments import benchmark
from experiments.benchmarks import models


def _ignore(line):
  del line


class ModelsSuiteTest(absltest.TestCase):

  def test_every_kind_has_rates_and_ratios(self):
    result = benchmark.run(
      'models', quick=True, options={'networks': ('lenet',)}, log=_ignore
    )['result']
    self.assertEqual(set(result), {'forward', 'training'})
    for table in result.values():
      self.assertGreater(table['ours']['lenet'], 0)
      if 'ratio' in table:
        self.assertLessEqual(table['least_ratio']['lenet'],
                             table['ratio']['lenet'])

  def test_contestants_are_the_same_function(self):
    result = benchmark.run(
      'models', quick=True, log=_ignore,
      options={'networks': ('squeezenet1_1',), 'kinds': ('forward',)},
    )['result']['forward']
    if 'logit_difference' not in result:
      self.skipTest('torchvision is not installed')
    self.assertLess(result['logit_difference']['squeezenet1_1'], 1e-4)

  def test_updates_change_the_network_that_is_timed(self):
    network = models._network('lenet', 10, None)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    before = np.array(network.fc3.kernel[...])
    updates = models.Updates(network, images, 10)
    updates(3)
    after = np.asarray(updates.state[0]['fc3']['kernel'][...])
    self.assertGreater(np.abs(after - before).max(), 1e-4)

  def test_unknown_kinds_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'kinds'):
      models.run(_ignore, kinds=('backward',))


if __name__ == '__main__':
  absltest.main()
