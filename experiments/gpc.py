"""Sobol indices of an image classifier under perturbations of its images.

  python -m experiments.gpc --config=configs/weld.py

The flow: data, classifier (trained on first use), nodes, outputs, expansion,
indices, report. Everything is written below the run directory; the same command
again takes what is there and computes what is missing.
"""

from collections.abc import Sequence
import dataclasses
import io
import json
import pathlib

from absl import app
import chaospy
import jax
from ml_collections import ConfigDict
import numpy as np
import tqdm

from experiments import image_results
from experiments import runs
from experiments import train
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import files
from jaxsens import quantities
from jaxsens import sensitivity
from jaxsens.data import image_sets
from jaxsens.data.synthetic import weld as synthetic_weld
from jaxsens.perturbations import chains
from jaxsens.reports import results
from jaxsens.reports import run_directory


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Runs or resumes the analysis of a config; returns its metrics."""
  runs.start(config, workdir)
  stage = runs.Stages()
  key_data, key_train, key_design, key_noise, key_bootstrap = (
    runs.split_keys(config)
  )
  space = make_space(config)
  chain = chains.make_chain(
    space, (config.model.image_size,) * 2, **config.perturbation
  )
  plan = sensitivity.plan(key_design, space, make_settings(config))
  with stage('data'):
    splits = train.load_data(key_data, config)
    frames = analysed_frames(splits.test, config)
    note_data(workdir, config, splits)
  with stage('training'):
    trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  with stage('evaluation'):
    views = image_results.make_views(plan, chain, config.report)
    evaluator = make_evaluator(
      trained.classifier, chain, config, workdir, frames, views.values
    )
    outputs = evaluate(key_noise, evaluator, frames, views.values)
  with stage('indices'):
    answers = [
      sensitivity.conclude(key_bootstrap, plan, rows[views.plan_rows])
      for rows in outputs
    ]
    write_arrays(workdir, plan, answers, frames)
  with stage('second views'):
    planes = image_results.make_planes(plan, chain, answers, config.report)
    plane_outputs = evaluate(
      key_noise, evaluator, frames, [plane.values for plane in planes]
    )
  with stage('report'):
    images = [
      image_results.make_image_result(
        key_noise, evaluator, frames, i, plan, answer, views, rows, plane,
        plane_rows,
      )
      for i, (answer, rows, plane, plane_rows) in enumerate(
        zip(answers, outputs, planes, plane_outputs, strict=True)
      )
    ]
    num_evaluations = len(frames) * len(views.values) + sum(
      len(plane.values) for plane in planes
    )
    result = results.RunResult(
      title=f'{config.name}: sensitivity of {config.model.name}',
      data_description=f'{len(frames)} of {frames.description}',
      images=tuple(images),
      class_names=frames.class_names,
      provenance=provenance(
        config, trained, plan, evaluator, num_evaluations, stage.seconds
      ),
      factors=space.describe(),
    )
    run_directory.write_all(workdir, result)
  for sentence in image_results.sentences(result):
    runs.LOG.info('%s', sentence)
  runs.LOG.info('Report: %s', workdir / 'report.html')
  return json.loads((workdir / 'metrics.json').read_text())


def make_space(config: ConfigDict) -> factors.FactorSpace:
  """Returns the factors of a config in the order in which they act."""
  made = []
  for name in config.factor_order:
    if name not in config.factors:
      raise ValueError(
        f'factor_order names {name!r}, config.factors has '
        f'{sorted(config.factors)}'
      )
    fields = config.factors[name].to_dict()
    kind = fields.pop('distribution')
    unit = fields.pop('unit', image_results.unit_of(name))
    constructor = getattr(chaospy, kind, None)
    if not isinstance(constructor, type):
      raise ValueError(
        f'factors.{name}.distribution: chaospy has no distribution {kind!r}'
      )
    made.append(factors.Factor(name, constructor(**fields), unit))
  return factors.FactorSpace(tuple(made))


def make_settings(config: ConfigDict) -> sensitivity.Settings:
  """Returns the settings of the expansion from config.gpc."""
  fields = config.gpc.to_dict()
  used = set(config.factor_order)
  fields['num_nodes'] = {
    name: n for name, n in fields['num_nodes'].items() if name in used
  }
  fields['degrees'] = {
    name: n for name, n in fields['degrees'].items() if name in used and n >= 0
  }
  fields['max_interaction'] = fields['max_interaction'] or None
  return sensitivity.Settings(**fields)


def analysed_frames(
  test: image_sets.ImageSet, config: ConfigDict
) -> image_sets.ImageSet:
  """Returns the test frames to analyse: the classes in turn, then the rest."""
  turn = np.zeros(len(test), int)
  for label in np.unique(test.labels):
    of_class = np.flatnonzero(test.labels == label)
    turn[of_class] = np.arange(len(of_class))
  order = np.lexsort((test.labels, turn))
  frames = test.take(order[:config.data.num_images])
  if config.data.frame_width and frames.parameters:
    size = synthetic_weld.frame_size(config.data.frame_width)
    images = synthetic_weld.render_all(frames.parameters, size)
    frames = dataclasses.replace(frames, images=images)
  return frames


def note_data(
  workdir: pathlib.Path, config: ConfigDict, splits: image_sets.Splits
) -> None:
  """Logs which data are used and writes it into config.json."""
  used = {
    part: f'{len(getattr(splits, part))} frames: '
    f'{getattr(splits, part).description}'
    for part in ('train', 'validation', 'test')
  }
  for part, text in used.items():
    runs.LOG.info('Data, %s: %s', part, text)
  content = {**config.to_dict(), 'data_used': used}
  runs.write_json(workdir / 'config.json', content)


def make_evaluator(
  classifier, chain, config, workdir, frames, values
) -> evaluation.Evaluator:
  """Returns the evaluator, with the batching of this run directory."""
  make = lambda batching: evaluation.make_evaluator(
    classifier, chain,
    quantities.make_quantities(config.quantities, classifier.class_names),
    batching=batching, store=evaluation.ChunkStore(workdir / 'outputs'),
    mesh=None if jax.device_count() == 1 else jax.make_mesh(
      (jax.device_count(),), ('data',)
    ),
  )
  path = workdir / 'batching.json'
  backend = f'{jax.default_backend()}, {jax.device_count()} devices'
  if path.exists():
    kept = json.loads(path.read_text())
    if kept['backend'] == backend:
      return make(evaluation.Batching(kept['batch_size'], kept['chunk_size']))
  sizes = evaluation.default_batch_sizes(
    jax.default_backend(), jax.device_count()
  )
  if config.evaluation.batch_size:
    sizes = (config.evaluation.batch_size,)
  batching, rates = evaluation.measure_batching(
    make(evaluation.Batching(sizes[0], sizes[0])), frames.images[0], values,
    sizes, seconds_per_chunk=config.evaluation.seconds_per_chunk,
  )
  runs.write_json(path, {
    **dataclasses.asdict(batching), 'backend': backend,
    'nodes_per_second': rates,
  })
  return make(batching)


def evaluate(
  key: jax.Array,
  evaluator: evaluation.Evaluator,
  frames: image_sets.ImageSet,
  values: np.ndarray | Sequence[np.ndarray],
) -> list[np.ndarray]:
  """Returns the outputs of every frame, with a progress bar over all nodes."""
  if isinstance(values, np.ndarray):
    values = [values] * len(frames)
  with tqdm.tqdm(total=sum(map(len, values)), unit='node') as bar:
    return [
      evaluator(
        jax.random.fold_in(key, i), image, label, values[i],
        name=frames.names[i], progress=bar.update,
      )
      for i, (image, label) in enumerate(frames)
    ]


def write_arrays(workdir, plan, answers, frames) -> None:
  """Writes design.npz and expansion.npz."""
  _write_npz(
    workdir / 'design.npz', factors=np.array(plan.space.names),
    nodes=plan.design.nodes, weights=plan.design.weights,
    held_out=plan.held_out.nodes, values=plan.values,
  )
  _write_npz(
    workdir / 'expansion.npz', factors=np.array(plan.space.names),
    multi_indices=plan.basis.multi_indices,
    coefficients=np.stack([a.expansion.coefficients for a in answers]),
    images=np.array(frames.names),
  )


def _write_npz(path, **arrays) -> None:
  content = io.BytesIO()
  np.savez(content, **arrays)
  files.write_bytes(path, content.getvalue())


def provenance(
  config, trained, plan, evaluator, num_evaluations, seconds
) -> dict:
  """Returns what a reader needs to judge or repeat the run."""
  metrics = trained.metadata.metrics
  return {
    'model': f'{config.model.name}, {config.model.image_size} pixels, '
    f'{"restored" if trained.restored else "trained in this run"}',
    'validation_accuracy': metrics['validation_accuracy'],
    'num_evaluations': num_evaluations,
    'training data': trained.metadata.data,
    'design': f'{plan.design.kind}, {plan.design.num_nodes} nodes, '
    f'{plan.basis.num_terms} terms, {plan.held_out.num_nodes} held-out nodes',
    'batching': dataclasses.asdict(evaluator.batching),
    'stage_seconds': {name: round(s, 2) for name, s in seconds.items()},
    'training': {k: v for k, v in metrics.items() if k != 'history'},
    'config': config.to_dict(),
    'versions': runs.versions(),
  }


if __name__ == '__main__':
  app.run(runs.make_main(run))
