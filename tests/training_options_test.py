"""Optimisers, schedules, losses and rules of a training, beside torch's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jaxsens.training import losses
from jaxsens.training import metrics
from jaxsens.training import monitors
from jaxsens.training import optimizers
from jaxsens.training import repeats
from jaxsens.training import schedules
from jaxsens.training import scoring
from jaxsens.training import settings as settings_lib

CONSTANT = schedules.Schedule('constant')


def _torch():
  return pytest.importorskip('torch', reason='torch is the oracle here')


@pytest.mark.parametrize('options', [
  {'name': 'adamw', 'weight_decay': 0.1},
  {'name': 'adam', 'weight_decay': 0.1},
  {'name': 'adam'},
  {'name': 'sgd', 'momentum': 0.0},
  {'name': 'sgd', 'momentum': 0.0, 'weight_decay': 0.1},
  {'name': 'sgd', 'momentum': 0.9, 'weight_decay': 0.1},
  {'name': 'sgd', 'momentum': 0.9, 'weight_decay': 0.1, 'nesterov': True},
  {'name': 'sgd', 'momentum': 0.9, 'weight_decay': 0.1, 'clip_norm': 0.5},
  {'name': 'adamw', 'clip_norm': 0.5},
], ids=str)
def test_updates_equal_torchs(options):
  torch = _torch()
  rng = np.random.default_rng(0)
  start = {'a': rng.normal(size=(3, 2)), 'b': rng.normal(size=4)}
  gradients = [
    {name: rng.normal(size=x.shape) for name, x in start.items()}
    for _ in range(5)
  ]
  optimizer = optimizers.create(
    learning_rate=0.05, schedule=CONSTANT, steps_per_epoch=3, **options
  )
  params = {n: jnp.asarray(x, jnp.float32) for n, x in start.items()}
  state = optimizer.init(params)
  peers = {n: torch.tensor(x, requires_grad=True) for n, x in start.items()}
  kinds = {
    'adamw': torch.optim.AdamW, 'adam': torch.optim.Adam, 'sgd': torch.optim.SGD
  }
  passed = {
    k: v for k, v in options.items() if k not in ('name', 'clip_norm')
  }
  passed.setdefault('weight_decay', 0.0)
  peer = kinds[options['name']](peers.values(), lr=0.05, **passed)
  for gradient in gradients:
    updates, state = optimizer.update(
      {n: jnp.asarray(g, jnp.float32) for n, g in gradient.items()}, state,
      params,
    )
    params = optax.apply_updates(params, updates)
    for name, tensor in peers.items():
      tensor.grad = torch.tensor(gradient[name])
    if options.get('clip_norm'):
      torch.nn.utils.clip_grad_norm_(peers.values(), options['clip_norm'])
    peer.step()
  for name, tensor in peers.items():
    np.testing.assert_allclose(params[name], tensor.detach(), atol=2e-6)


@pytest.mark.parametrize('options', [
  {'name': 'adagrad'}, {'name': 'adam', 'nesterov': True},
  {'name': 'sgd', 'momentum': 1.0}, {'name': 'sgd', 'clip_norm': -1.0},
], ids=str)
def test_optimisers_that_cannot_be_are_refused(options):
  with pytest.raises(ValueError, match='optimizer|nesterov|momentum|clip_norm'):
    optimizers.create(
      learning_rate=0.1, schedule=CONSTANT, steps_per_epoch=1, **options
    )


def test_multistep_equals_torchs_epoch_by_epoch():
  torch = _torch()
  optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
  peer = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5], gamma=0.2)
  schedule = schedules.Schedule(
    'multistep', milestones=[2, 5], milestone_factor=0.2
  )
  for epoch in range(7):
    found = [float(schedule.factor(3 * epoch + i, 3)) for i in range(3)]
    np.testing.assert_allclose(found, 3 * peer.get_last_lr(), rtol=1e-6)
    optimizer.step()
    peer.step()


def test_linear_warmup_rises_by_equal_steps_and_falls_by_a_cosine():
  schedule = schedules.Schedule(
    'linear_warmup_cosine', warmup_epochs=2, end_epoch=6, final_factor=0.0
  )
  factors = [float(schedule.factor(n, 4)) for n in range(28)]
  np.testing.assert_allclose(factors[:8], np.arange(1, 9) / 8, rtol=1e-6)
  t = np.arange(16) / 16
  np.testing.assert_allclose(
    factors[8:24], (1 + np.cos(np.pi * t)) / 2, atol=1e-6
  )
  np.testing.assert_allclose(factors[24:], 0, atol=1e-6)


@pytest.mark.parametrize(('options', 'message'), [
  ({'name': 'steps'}, "got 'steps'"),
  ({'name': 'multistep'}, 'milestones'),
  ({'name': 'multistep', 'milestones': (5, 2)}, r'\(5, 2\)'),
  ({'name': 'linear_warmup_cosine', 'warmup_epochs': 10}, '10 and 10'),
])
def test_schedules_that_cannot_be_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    schedules.Schedule(**options)


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.7])
def test_weighted_smoothed_loss_and_its_gradient_equal_torchs(smoothing):
  torch = _torch()
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(7, 4)).astype(np.float32)
  labels = np.array([0, 3, 1, 1, 2, 3, 3])
  weights = np.array([0.5, 2.5, 0.0, 1.1], np.float32)

  def loss(logits):
    sums = losses.cross_entropy_sums(
      logits, labels, jnp.asarray(weights), smoothing=smoothing
    )
    return sums[0] / sums[1]

  peer = torch.tensor(logits, requires_grad=True)
  expected = torch.nn.CrossEntropyLoss(
    torch.tensor(weights), label_smoothing=smoothing
  )(peer, torch.tensor(labels))
  expected.backward()
  value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits))
  np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
  np.testing.assert_allclose(gradient, peer.grad, atol=1e-6)


def test_mixed_images_have_the_loss_of_mixed_labels():
  rng = np.random.default_rng(2)
  images = jnp.asarray(rng.normal(size=(5, 2, 2, 1)), jnp.float32)
  labels = jnp.array([0, 1, 2, 1, 0])
  mixed, partners, share = losses.mix(jax.random.key(3), images, labels, 0.4)
  np.testing.assert_array_equal(partners, labels[::-1])
  np.testing.assert_allclose(
    mixed, share * images + (1 - share) * images[::-1], rtol=1e-6
  )
  logits = rng.normal(size=(5, 3)).astype(np.float32)
  sums = losses.mixed_cross_entropy_sums(
    logits, labels, partners, share, jnp.ones(3)
  )
  log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  targets = share * np.eye(3)[labels] + (1 - share) * np.eye(3)[partners]
  np.testing.assert_allclose(
    sums[0] / sums[1], -(targets * log_softmax).sum(1).mean(), rtol=1e-5
  )


def test_shares_of_mixup_follow_the_beta_distribution():
  image, label = jnp.ones((1, 1, 1, 1)), jnp.zeros(1, int)
  shares = jax.vmap(lambda key: losses.mix(key, image, label, 0.4)[2])(
    jax.random.split(jax.random.key(0), 2000)
  )
  assert stats.kstest(np.asarray(shares), 'beta', (0.4, 0.4)).pvalue > 1e-3


def test_average_of_parameters_equals_the_sum_written_out():
  average, values = jnp.zeros(2), np.array([[1.0, 2], [3, 5], [4, 4], [0, 7]])
  expected = np.zeros(2)
  for n, value in enumerate(values):
    average = optimizers.move_average(average, jnp.asarray(value), n, 0.2)
    kept = [0.1, 2 / 11, 0.2, 0.2][n]
    expected = kept * expected + (1 - kept) * value
  np.testing.assert_allclose(average, expected, rtol=1e-6)


def _evaluations(losses_, f1=None):
  found = []
  for i, loss in enumerate(losses_):
    scores = metrics.scores([[1, 0], [0, 1]])
    scores = type(scores)(**{
      **scores.as_dict(), 'f1': f1[i] if f1 else 0.0, 'accuracy': 0.5
    })
    found.append(scoring.Evaluation(loss, scores))
  return found


def test_training_stops_when_more_than_the_limit_of_epochs_bring_nothing():
  monitor = monitors.Monitor('loss', early_limit=2)
  stops = []
  for evaluation in _evaluations([3, 2, 2, 2.5, 2.1, 2.2]):
    monitor.observe(evaluation)
    stops.append(monitor.should_stop)
  # The best is epoch 1; three epochs after it are more than two.
  assert monitor.best_epoch == 1
  assert stops == [False, False, False, False, True, True]


def test_network_is_replaced_every_so_many_epochs_without_a_best():
  monitor = monitors.Monitor('loss', replacement_limit=2)
  replaced = [
    monitor.observe(e) for e in _evaluations([3, 4, 4, 4, 4, 1, 2, 2])
  ]
  assert replaced == [False, False, True, False, True, False, False, True]
  assert not monitor.should_stop


def test_the_measure_decides_which_epoch_is_best():
  for quantity, best in (('loss', 2), ('macro_f1', 1), ('accuracy', 0)):
    monitor = monitors.Monitor(quantity)
    for e in _evaluations([3, 2, 1], f1=[0.1, 0.6, 0.6]):
      monitor.observe(e)
    assert monitor.best_epoch == best
  with pytest.raises(ValueError, match="'f1'"):
    monitors.Monitor('f1')


def test_interval_over_runs_equals_scipys():
  values = [0.91, 0.93, 0.9, 0.96]
  found = repeats.summarise(values, level=0.9)
  expected = stats.t.interval(
    0.9, 3, loc=np.mean(values), scale=stats.sem(values)
  )
  np.testing.assert_allclose((found.lower, found.upper), expected)
  np.testing.assert_allclose(found.std, np.std(values, ddof=1))
  text = repeats.table({'accuracy': found})
  assert '0.9250' in text and '90 %' in text


def test_one_run_has_a_mean_and_no_interval():
  found = repeats.summarise([0.5])
  assert found.mean == 0.5 and math.isnan(found.std)
  assert found.as_dict()['lower'] is None
  with pytest.raises(ValueError, match='n >= 1'):
    repeats.summarise([])


@pytest.mark.parametrize('options', [
  {'label_smoothing': 1.0}, {'mixup': -0.1}, {'ema_decay': 1.0},
  {'noise_doubling': -1.0}, {'learning_rate': 0.0}, {'weight_decay': -1.0},
  {'augmentation': 'randaugment'}, {'magnitude': 31,
                                    'augmentation': 'rand_augment'},
  {'crop': 'random'}, {'crop_padding': -1}, {'flip': 2.0},
  {'monitor': 'micro_f1'}, {'early_limit': -1}, {'schedule': 'cosine'},
  {'optimizer': 'lion'},
], ids=str)
def test_settings_that_make_no_sense_name_themselves(options):
  name = next(iter(options))
  with pytest.raises(ValueError, match=name):
    settings_lib.Settings(num_epochs=1, **options)
