"""Trainings that were killed, divided over devices, or cannot go on."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
from orbax import checkpoint as ocp
import pytest

from jaxsens.models import states
from jaxsens.training import batches
from jaxsens.training import loop
from jaxsens.training import snapshots
from tests import training_test

pytestmark = pytest.mark.usefixtures('quick_compiles')

_ROOT = pathlib.Path(__file__).parents[1]
# Everything at once: average, replacement, mixup, noise, crops, SGD.
_OPTIONS = {
  'num_epochs': 12, 'batch_size': 16, 'learning_rate': 0.02,
  'optimizer': 'sgd', 'ema_decay': 0.9, 'mixup': 0.2, 'noise_doubling': 0.1,
  'crop': 'padded', 'flip': 0.5, 'monitor': 'macro_f1',
  'replacement_limit': 2, 'label_smoothing': 0.1,
}
_PROGRAM = f"""
import sys
import numpy as np
from jaxsens.models import states
from jaxsens.training import snapshots
from tests import training_test
kept = snapshots.Snapshots(sys.argv[1], {{'seed': 0}})
tuned = training_test._fine_tune(
  snapshots=kept, on_epoch=lambda e: print(e.epoch, flush=True), **{_OPTIONS}
)
losses = [[e.train_loss, e.validation.loss] for e in tuned.history]
np.savez(sys.argv[2], losses=losses, **states.flatten(tuned.model))
"""


def _start(*arguments, program=_PROGRAM, **environment):
  return subprocess.Popen(
    [sys.executable, '-c', program, *map(str, arguments)], cwd=_ROOT,
    env={**os.environ, 'PYTHONPATH': str(_ROOT), **environment},
    stdout=subprocess.PIPE, text=True,
  )


def test_training_killed_at_any_moment_ends_bitwise_as_if_it_was_not(tmp_path):
  result, draw = tmp_path / 'result.npz', random.Random(0)
  for _ in range(3):
    process = _start(tmp_path / 'kept', result)
    # At least an epoch later than before, then at a random moment.
    for _ in range(2):
      process.stdout.readline()
    time.sleep(draw.uniform(0, 0.15))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not result.exists()
  process = _start(tmp_path / 'kept', result)
  printed = process.communicate()[0].split()
  # It went on and did not begin again.
  assert 0 < len(printed) < 12 and printed[-1] == '11'
  whole = training_test._fine_tune(**_OPTIONS)
  with np.load(result) as arrays:
    for name, array in states.flatten(whole.model).items():
      np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    np.testing.assert_array_equal(
      arrays['losses'],
      [[e.train_loss, e.validation.loss] for e in whole.history],
    )
  kept = {f'epoch_{epoch:04d}' for epoch in (11, whole.best_epoch)}
  names = {path.name for path in (tmp_path / 'kept').iterdir()}
  assert names == kept | {f'{name}.json' for name in kept}


_SHARDED = """
import sys
import jax
import numpy as np
from jaxsens.models import states
from jaxsens.training import loop
from jaxsens.training import scoring
from tests import training_test
assert jax.local_device_count() == 8
found, forward, counts = [], scoring._forward, []

def counted(*arguments):
  answers = forward(*arguments)
  counts.append(len(answers.sharding.device_set))
  rows = {shard.data.shape[0] for shard in answers.addressable_shards}
  assert rows == {len(answers) // counts[-1]}, rows
  return answers

scoring._forward = counted
for devices in (jax.local_devices(), jax.local_devices()[:1]):
  tuned = training_test._fine_tune(
    num_epochs=2, batch_size=16, crop='padded', flip=0.5, mixup=0.2,
    devices=devices
  )
  arrays = states.flatten(tuned.model)
  found.append(({n: np.asarray(x) for n, x in arrays.items()},
                [[e.train_loss, e.validation.loss] for e in tuned.history]))
  assert {x.sharding.num_devices for x in arrays.values()} == {1}
# 21 images in batches of 16, two epochs, divided over all devices and over one.
assert counts == 4 * [8] + 4 * [1], counts
(a, losses), (b, expected) = found
for name in a:
  np.testing.assert_allclose(a[name], b[name], atol=2e-4, err_msg=name)
np.testing.assert_allclose(losses, expected, rtol=1e-4)
# Scores and logits of the same network; 5 and 20 are no multiples of 8.
mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ('data',))
images = training_test.VALIDATION.images
for size in (5, 20):
  answers = [
    loop.predict(
      tuned.model, images, preprocess=training_test.GRAY, batch_size=size,
      mesh=m
    ) for m in (mesh, None)
  ]
  np.testing.assert_allclose(*answers, atol=1e-5)
scores = [
  loop.evaluate(
    tuned.model, training_test.VALIDATION, preprocess=training_test.GRAY,
    class_weights=np.ones(3), mesh=m
  ) for m in (mesh, None)
]
assert scores[0].scores == scores[1].scores
np.testing.assert_allclose(scores[0].loss, scores[1].loss, rtol=1e-6)
print('equal')
"""


def test_eight_devices_train_and_validate_as_one():
  process = _start(
    program=_SHARDED, XLA_FLAGS='--xla_force_host_platform_device_count=8'
  )
  assert process.communicate()[0] == 'equal\n'


def _kept(path, **config):
  return snapshots.Snapshots(path, {'seed': 0, 'training': config})


def test_snapshots_of_another_training_are_refused_field_by_field(tmp_path):
  options = {'num_epochs': 1}
  training_test._fine_tune(
    snapshots=_kept(tmp_path, rate=0.1, batch=4), **options
  )
  with pytest.raises(ValueError) as caught:
    training_test._fine_tune(
      snapshots=_kept(tmp_path, rate=0.2, batch=4, flip=0.5), **options
    )
  message = str(caught.value)
  assert 'training.rate: written with 0.1, now 0.2' in message
  assert 'training.flip: written with absent, now 0.5' in message
  assert 'batch' not in message and str(tmp_path) in message
  # A training that has all its epochs gives its network back without an update.
  epochs = []
  tuned = training_test._fine_tune(
    snapshots=_kept(tmp_path, rate=0.1, batch=4), on_epoch=epochs.append,
    **options,
  )
  assert not epochs and len(tuned.history) == 1


def test_finished_training_leaves_what_decided_it_and_no_arrays(tmp_path):
  kept = _kept(tmp_path, rate=0.1)
  tuned = training_test._fine_tune(snapshots=kept, num_epochs=3)
  assert kept.last().epoch == 2 and kept.has_remains()
  kept.finish()
  assert [path.name for path in tmp_path.iterdir()] == ['finished.json']
  assert kept.last() is None and not kept.has_remains()
  with pytest.raises(ValueError, match='rate: written with 0.1, now 0.2'):
    _kept(tmp_path, rate=0.2).last()
  # Where its network was removed, the same training begins anew and is kept.
  epochs = []
  again = training_test._fine_tune(
    snapshots=_kept(tmp_path, rate=0.1), num_epochs=3, on_epoch=epochs.append
  )
  assert len(epochs) == 3
  for one, two in ((tuned.model, again.model), (tuned.last, again.last)):
    for name, array in states.flatten(one).items():
      np.testing.assert_array_equal(array, states.flatten(two)[name])
  assert _kept(tmp_path, rate=0.1).last().epoch == 2


def test_what_a_killed_removal_leaves_is_no_snapshot(tmp_path, monkeypatch):
  kept = _kept(tmp_path)
  training_test._fine_tune(snapshots=kept, num_epochs=2)
  with monkeypatch.context() as patched:
    patched.setattr(snapshots.Snapshots, '_remove_all', lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      kept.finish()
  arrays = tmp_path / 'epoch_0001'
  assert arrays.is_dir() and kept.has_remains()
  next(f for f in arrays.rglob('*') if f.is_file()).unlink()
  assert _kept(tmp_path).last() is None
  _kept(tmp_path).finish()
  assert [path.name for path in tmp_path.iterdir()] == ['finished.json']


def test_snapshots_are_written_while_the_next_epoch_runs(tmp_path, monkeypatch):
  calls = []

  class Recorded(ocp.StandardCheckpointer):
    def save(self, *arguments, **options):
      super().save(*arguments, **options)
      calls.append('save')

    def wait_until_finished(self):
      super().wait_until_finished()
      calls.append('wait')

  # Its `save` returns once the arrays are copied.
  assert issubclass(ocp.StandardCheckpointer, ocp.AsyncCheckpointer)
  monkeypatch.setattr(snapshots.ocp, 'StandardCheckpointer', Recorded)
  kept, array = _kept(tmp_path), np.arange(3.0)
  for epoch in (0, 1):
    kept.save(epoch, {'a': array}, {'best_epoch': 0}, best_epoch=0)
    # Nobody has waited for it.
    assert calls[-1] == 'save'
    array += 100
  kept.close()
  for epoch, expected in ((0, [0, 1, 2]), (1, [100, 101, 102])):
    found = kept.find(epoch).arrays({'a': array})
    np.testing.assert_array_equal(found['a'], expected)


def test_loss_that_is_no_number_keeps_the_snapshot_before(tmp_path):
  # So high a rate that the second epoch's loss overflows.
  with pytest.raises(FloatingPointError) as caught:
    training_test._fine_tune(
      num_epochs=3, optimizer='sgd', schedule='multistep', milestones=(1,),
      milestone_factor=1e30, momentum=0.0,
      snapshots=_kept(tmp_path),
    )
  message = str(caught.value)
  assert 'epoch 1, step' in message and 'rate 1e+28' in message
  assert f'snapshot of epoch 0 is kept in {tmp_path}' in message
  last = _kept(tmp_path).last()
  assert last.epoch == 0
  assert np.isfinite(last.document['history'][0]['train_loss'])


def test_damaged_snapshot_is_named(tmp_path):
  training_test._fine_tune(snapshots=_kept(tmp_path))
  document = tmp_path / 'epoch_0000.json'
  text = document.read_text()
  for file in (tmp_path / 'epoch_0000').rglob('*'):
    if file.is_file():
      file.write_bytes(file.read_bytes()[:20])
  with pytest.raises(ValueError, match='epoch_0000: damaged snapshot'):
    training_test._fine_tune(snapshots=_kept(tmp_path))
  document.write_text(text[:30])
  with pytest.raises(ValueError, match='epoch_0000.json: damaged snapshot'):
    _kept(tmp_path).last()
  document.write_text(json.dumps({'format': 9}))
  with pytest.raises(ValueError, match='format 9, expected 1'):
    _kept(tmp_path).last()


def test_early_stop_ends_the_training(tmp_path):
  contrary = loop.LabelledImages(
    training_test.VALIDATION.images, (training_test.VALIDATION.labels + 1) % 3
  )
  tuned = training_test._fine_tune(
    num_epochs=30, validation=contrary, early_limit=2
  )
  assert len(tuned.history) == tuned.best_epoch + 4 < 30


def test_average_of_the_parameters_is_what_is_evaluated_and_returned():
  tuned = training_test._fine_tune(num_epochs=2, ema_decay=0.9)
  again = loop.evaluate(
    tuned.model, training_test.VALIDATION, preprocess=training_test.GRAY,
    class_weights=np.ones(3), batch_size=16,
  )
  plain = training_test._fine_tune(num_epochs=2)
  best = tuned.history[tuned.best_epoch]
  assert again == best.validation
  # The average does not feed back: batch by batch the losses are the same.
  assert [e.train_loss for e in tuned.history] == [
    e.train_loss for e in plain.history
  ]
  assert best.validation.loss != plain.history[tuned.best_epoch].validation.loss


def test_training_images_of_one_class_or_a_single_one_are_refused():
  train = training_test.TRAIN
  for chosen in (train.labels == 1, np.arange(len(train.labels)) == 3):
    data = loop.LabelledImages(train.images[chosen], train.labels[chosen])
    with pytest.raises(ValueError, match='at least two classes, got'):
      training_test._fine_tune(train=data)


@pytest.mark.parametrize('placement', ['host', 'auto'])
def test_set_too_large_for_the_device_trains_the_same_network(
  monkeypatch, placement
):
  resident = training_test._fine_tune(placement='device')
  if placement == 'auto':
    monkeypatch.setattr(batches, 'free_bytes', lambda devices: 10)
  gathered = training_test._fine_tune(placement=placement)
  np.testing.assert_allclose(
    gathered.history[0].train_loss, resident.history[0].train_loss, rtol=1e-6
  )
  arrays = states.flatten(resident.model)
  for name, array in states.flatten(gathered.model).items():
    np.testing.assert_allclose(array, arrays[name], atol=1e-5, err_msg=name)


def test_set_that_must_be_on_the_device_and_does_not_fit_is_refused():
  train = training_test.TRAIN
  needed = train.images.nbytes + train.labels.nbytes
  feeder = batches.Feeder(train, 16, placement='device', device_bytes=needed)
  assert feeder.is_resident
  fits = batches.Feeder(train, 16, device_bytes=needed - 1)
  assert not fits.is_resident
  assert not batches.Feeder(train, 16, placement='host').is_resident
  # 70 images of 8 x 8 float32 and as many int32 labels.
  message = r"70 .*\(8, 8, 1\) take 18,200 bytes, of which 18,199 .*'host'"
  with pytest.raises(ValueError, match=message):
    batches.Feeder(train, 16, placement='device', device_bytes=needed - 1)
  with pytest.raises(ValueError, match="'auto', 'device', 'host'.*got 'disk'"):
    training_test._fine_tune(placement='disk')


def test_images_may_take_half_of_what_the_fullest_device_has_free():
  class Device:
    def __init__(self, **stats):
      self.memory_stats = lambda: stats or None

  large = Device(bytes_limit=1000, bytes_in_use=100)
  full = Device(bytes_limit=1000, bytes_in_use=600)
  assert batches.free_bytes([large]) == 450
  assert batches.free_bytes([large, full]) == 200
  assert batches.free_bytes([large, Device()]) == 4 * 2**30
