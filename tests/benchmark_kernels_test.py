"""The suite that says what a kernel per class costs."""

from absl.testing import absltest
import numpy as np

from experiments import benchmark
from experiments.benchmarks import kernels
from jaxsens.training import batches


class KernelsSuiteTest(absltest.TestCase):

  def test_every_way_of_training_and_answering_has_a_cost(self):
    result = benchmark.run('kernels', quick=True, log=lambda _: None)['result']
    self.assertEqual(
      set(result['update']['cost']), set(kernels.OBJECTIVES)
    )
    for table in result.values():
      self.assertEqual(table['cost'][kernels.BASELINE], 1)
      self.assertGreater(min(table['milliseconds'].values()), 0)

  def test_updates_change_the_network_that_is_timed(self):
    network = kernels._network('kernels', 'lenet', 3, 32)
    rng = np.random.default_rng(0)
    data = batches.LabelledImages(
      rng.random((4, 32, 32, 1), np.float32), np.array([0, 1, 2, 0], np.int32)
    )
    updates = kernels.Updates(
      network, data, kernels.OBJECTIVES['kernels, penalty'], 3
    )
    before = np.array(network.head.kernels[...])
    updates(3)
    after = np.asarray(updates.state.params['head']['kernels'][...])
    self.assertGreater(np.abs(after - before).max(), 1e-5)


if __name__ == '__main__':
  absltest.main()
