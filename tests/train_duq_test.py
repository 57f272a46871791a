"""The choice of kernels by validation, as a user runs it, small."""

import json
import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np
import pytest

from configs import cifar10_duq
from configs import steel_duq
from configs import weld
from configs import weld_duq
from experiments import convert_weights
from experiments import evaluate
from experiments import runs
from experiments import train
from experiments import train_duq
from experiments import training_fields
from jaxsens import quantities
from jaxsens.uncertainty import duq

pytestmark = pytest.mark.usefixtures('quick_compiles')


def _small():
  config = runs.resolve(weld_duq.get_config('small'))
  config.model.update({'name': 'lenet', 'init': 'random'})
  config.training.tensorboard = False
  return config


def _candidate(accuracy, auroc, length_scale=0.1):
  return train_duq.Candidate(length_scale, 0.0, accuracy, 1.0, auroc, 0.5)


class ChoiceTest(parameterized.TestCase):

  @parameterized.parameters(
    # A point of accuracy is given up for order among the errors, no more.
    ([(0.95, 0.80), (0.94, 0.90), (0.93, 0.99)], 1),
    ([(0.95, 0.80), (0.93, 0.99)], 0),
    ([(0.95, 0.80), (0.95, 0.80)], 0),
    ([(0.94, 0.80), (0.95, 0.80)], 1),
  )
  def test_accuracy_decides_up_to_a_point_and_then_the_order(
    self, scores, expected
  ):
    candidates = [
      _candidate(*pair, length_scale=i) for i, pair in enumerate(scores)
    ]
    self.assertEqual(train_duq.choose(candidates).length_scale, expected)

  def test_every_pair_of_candidates_is_a_config_of_its_own(self):
    config = _small()
    config.duq.length_scales, config.duq.penalties = (0.1, 0.3), (0.0, 0.5)
    found = train_duq.variants(config)
    self.assertLen({train_duq.directory_name(one) for one in found}, 4)
    self.assertLen({training_fields.training_hash(one) for one in found}, 4)
    # What was searched is not part of the network.
    alone = _small()
    alone.duq.length_scale, alone.duq.penalty = 0.3, 0.5
    self.assertEqual(
      training_fields.training_hash(alone),
      training_fields.training_hash(found[3]),
    )


class RunTest(parameterized.TestCase):

  def test_run_trains_all_writes_them_and_leaves_the_chosen_one(self):
    config = _small()
    config.duq.length_scales = (0.2, 0.8)
    config.duq.penalty = 0.1
    workdir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    metrics = train_duq.run(config, workdir)
    kept = json.loads((workdir / 'duq.json').read_text())
    self.assertEqual(
      [one['length_scale'] for one in kept['candidates']], [0.2, 0.8]
    )
    chosen = kept['chosen']
    self.assertIn(chosen, kept['candidates'])
    self.assertEqual(metrics['validation_accuracy'], chosen['accuracy'])
    self.assertIn('chosen', (workdir / 'duq.txt').read_text())

    # Another experiment beside it restores the network.
    one = _small()
    one.duq.length_scale, one.duq.penalty = chosen['length_scale'], 0.1
    trained = train.train_or_restore(
      runs.split_keys(one)[1], one, workdir / 'other', self.fail
    )
    self.assertTrue(trained.restored)
    classifier = trained.classifier
    self.assertEqual(classifier.answers, 'log_kernels')
    images = np.random.default_rng(0).random((4, 32, 32, 1), np.float32)
    log_kernels = np.asarray(classifier(images))
    self.assertTrue((log_kernels <= 0).all())
    # Without the config, from what the checkpoint says of itself.
    alone, _ = convert_weights.read_checkpoint(
      workdir / 'chosen' / 'checkpoint'
    )
    self.assertIsInstance(alone, duq.Network)
    np.testing.assert_allclose(
      alone(classifier.preprocess(images)), log_kernels, rtol=1e-4, atol=1e-6
    )
    certainty = evaluate.certainty_of(classifier, log_kernels)
    np.testing.assert_allclose(
      certainty, np.exp(log_kernels).max(1), rtol=1e-6
    )
    read = quantities.make_quantities(
      one.quantities, classifier.class_names, answers=classifier.answers
    )
    np.testing.assert_allclose(
      read(log_kernels[0], 0)[0], certainty[0], rtol=1e-6
    )
    with self.assertRaisesRegex(ValueError, 'of log_kernels.*probability'):
      quantities.make_quantities(
        ('probability',), classifier.class_names, answers='log_kernels'
      )

  def test_config_without_kernels_or_validation_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'no field duq'):
      train_duq.run(weld.get_config('small'), pathlib.Path('unused'))

  @parameterized.parameters(
    ({'length_scal': 0.1}, 'length_scal'), ({'penalty': -1.0}, 'penalty'),
    ({'centroids': 'test'}, 'centroids'),
  )
  def test_fields_that_make_no_sense_are_named(self, fields, message):
    config = _small()
    config.duq.update(fields)
    with self.assertRaisesRegex(ValueError, message):
      training_fields.check(config)

  @parameterized.parameters(steel_duq, weld_duq, cifar10_duq)
  def test_configs_pass_the_check(self, module):
    for variant in ('', 'small'):
      training_fields.check(module.get_config(variant))
    with self.assertRaisesRegex(ValueError, 'unknown variant'):
      module.get_config('nothing')
