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
from experiments import limits
from experiments import population_results
from experiments import runs
from experiments import train
from experiments import training_fields
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import files
from jaxsens import marginals
from jaxsens import quantities as quantities_lib
from jaxsens import sensitivity
from jaxsens.data import image_sets
from jaxsens.data.synthetic import weld as synthetic_weld
from jaxsens.gpc import expansions
from jaxsens.perturbations import chains
from jaxsens.perturbations import registry
from jaxsens.reports import population_page
from jaxsens.reports import results
from jaxsens.reports import run_directory


def run(config: ConfigDict, workdir: pathlib.Path) -> dict:
  """Runs or resumes the analysis of a config; returns its metrics."""
  runs.start(config, workdir)
  stage = runs.Stages()
  key_data, key_train, key_design, key_noise, key_bootstrap = (
    runs.split_keys(config)
  )
  space, settings = make_space(config), make_settings(config)
  chain = make_chain(config, space)
  plan = None
  if settings.design != sensitivity.ADAPTIVE:
    plan = sensitivity.plan(key_design, space, settings)
  with stage('data'):
    splits = train.load_data(key_data, config)
    note_data(workdir, config, splits)
  with stage('training'):
    trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
    test = splits.test
    if config.data.get('only_recognised', False):
      test = image_results.recognised(trained.classifier, test)
    frames = analysed_frames(test, config)
  quantities = quantities_lib.make_quantities(
    config.quantities, trained.classifier.class_names,
    answers=trained.classifier.answers,
  )
  with stage('evaluation and indices'):
    views = image_results.make_views(space, chain, config.report)
    evaluator = make_evaluator(
      trained.classifier, chain, config, workdir, frames, views.values
    )
    pushes = [
      image_results.make_push(quantities, int(label)) for label in frames.labels
    ]
    if plan is None:
      answers, steps = refine(
        key_design, key_noise, evaluator, frames, space, pushes, settings
      )
    else:
      answers, steps = [
        sensitivity.conclude(key_bootstrap, plan, push(logits))
        for push, logits in zip(
          pushes, evaluate(key_noise, evaluator, frames, plan.values),
          strict=True,
        )
      ], ()
    write_arrays(workdir, space, answers, frames)
  with stage('views'):
    shown = frames.take(np.arange(min(len(frames), config.report.num_detailed)))
    planes = image_results.make_planes(
      space, chain, answers[:len(shown)], config.report
    )
    logits = evaluate(key_noise, evaluator, shown, views.values)
    plane_logits = evaluate(
      key_noise, evaluator, shown, [plane.values for plane in planes]
    )
  with stage('limits'):
    bounds = [
      limits.find_or_restore(
        workdir / 'limits', jax.random.fold_in(key_bootstrap, i),
        jax.random.fold_in(key_noise, i), config.report, trained.classifier,
        chain, shown, i, space, quantities, answers[i],
      )
      for i in tqdm.trange(len(shown), unit='image')
    ]
  with stage('report'):
    images = [
      image_results.make_image_result(
        key_noise, evaluator, quantities, shown, i, answer, views, *rest,
        max_half_width=settings.max_half_width if plan is None else None,
        limits=bounds[i],
      )
      for i, (answer, *rest) in enumerate(
        zip(answers[:len(shown)], logits, planes, plane_logits, strict=True)
      )
    ]
    num_evaluations = sum(
      len(views.values) + len(plane.values) for plane in planes
    ) + sum(answer.num_evaluations for answer in answers)
    result = results.RunResult(
      title=f'{config.name}: sensitivity of {config.model.name}',
      data_description=f'{len(frames)} of {frames.description}',
      images=tuple(images),
      class_names=frames.class_names,
      provenance=provenance(
        config, trained, answers, evaluator, num_evaluations, stage.seconds
      ),
      factors=space.describe(),
      steps=tuple(
        results.ConvergenceStep(np.asarray(s.num_evaluations), s.half_widths)
        for s in steps
      ),
      tolerance=settings.tolerance if plan is None else None,
    )
    run_directory.write_all(workdir, result)
    if len(frames) >= population_results.FEWEST:
      at_identity = evaluate(
        key_noise, evaluator, frames, np.array([chain.identity], float)
      )
      population_page.write_all(workdir, population_results.make_study(
        key_bootstrap, result.title, frames, space, chain, quantities, answers,
        np.concatenate(at_identity), result.steps,
        result.tolerance, result.provenance,
      ))
      runs.LOG.info('Data set: %s', workdir / 'population.html')
  for sentence in image_results.sentences(result):
    runs.LOG.info('%s', sentence)
  runs.LOG.info('Report: %s', workdir / 'report.html')
  return json.loads((workdir / 'metrics.json').read_text())


def refine(
  key_design, key_noise, evaluator, frames, space, pushes, settings
):
  """Returns the answers of an adaptive run and its steps, which it logs."""
  with tqdm.tqdm(
    total=len(frames) * settings.max_evaluations, unit='node'
  ) as bar:

    def evaluate_nodes(i, nodes):
      return evaluator(
        jax.random.fold_in(key_noise, i), frames.images[i],
        int(frames.labels[i]), space.to_values(nodes), name=frames.names[i],
        progress=bar.update,
      )

    def log(step):
      widths = step.half_widths[~np.isnan(step.half_widths)]
      bar.write(
        f'{step.num_evaluations} runs per image: half-widths '
        f'{np.median(widths) if len(widths) else np.nan:.3f} (median) to '
        f'{widths.max(initial=0):.3f}, {step.open.sum()} of '
        f'{len(step.open)} images go on; by kriging '
        f'{step.methods.count("kriging")}, by sparse polynomials '
        f'{step.methods.count("sparse")}'
      )

    return sensitivity.refine(
      key_design, evaluate_nodes, space, pushes, settings, on_step=log
    )


def make_space(config: ConfigDict) -> factors.FactorSpace:
  """Returns the factors of a config in the order in which they act."""
  made = []
  for name in config.factor_order:
    if name not in config.factors:
      made.append(_default_factor(name))
      continue
    fields = config.factors[name].to_dict()
    kind = fields.pop('distribution')
    unit = fields.pop('unit', image_results.unit_of(name))
    if kind == 'Discrete':
      made.append(factors.Factor(name, marginals.Discrete(**fields), unit))
      continue
    constructor = getattr(chaospy, kind, None)
    if not isinstance(constructor, type):
      raise ValueError(
        f'factors.{name}.distribution: chaospy has no distribution {kind!r}'
      )
    made.append(factors.Factor(name, constructor(**fields), unit))
  return factors.FactorSpace(tuple(made))


def _default_factor(name: str) -> factors.Factor:
  """A factor that is only named: uniform over its sensible range."""
  _, parameter = registry.parameter(name)
  lower, upper = parameter.sensible_range
  runs.LOG.info(
    'Factor %s: uniform over [%g, %g] %s, its sensible range', name, lower,
    upper, parameter.unit,
  )
  return factors.Factor(name, chaospy.Uniform(lower, upper), parameter.unit)


def make_chain(config: ConfigDict, space: factors.FactorSpace) -> chains.Chain:
  """Returns the perturbations of a config for its network's input."""
  options = config.perturbation.to_dict()
  border = options.pop('border')
  if border not in ('constant', 'edge', 'reflect'):
    raise ValueError(
      "perturbation.border must be 'constant', 'edge' or 'reflect', got "
      f'{border!r}'
    )
  if border != 'constant':
    options['fill'] = border
  return chains.make_chain(space, training_fields.image_size(config), **options)


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
  frames = test.take(in_turn(test.labels)[:config.data.num_images])
  if config.data.frame_width and frames.parameters:
    size = synthetic_weld.frame_size(config.data.frame_width)
    images = synthetic_weld.render_all(frames.parameters, size)
    frames = dataclasses.replace(frames, images=images)
  return frames


def in_turn(labels: np.ndarray) -> np.ndarray:
  """Returns positions of all labels, the classes in turn."""
  turn = np.zeros(len(labels), int)
  for label in np.unique(labels):
    of_class = np.flatnonzero(labels == label)
    turn[of_class] = np.arange(len(of_class))
  return np.lexsort((labels, turn))


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
    quantities_lib.make_quantities(('logits',), classifier.class_names),
    batching=batching, store=evaluation.ChunkStore(workdir / 'outputs'),
    mesh=None if jax.device_count() == 1 else jax.make_mesh(
      (jax.device_count(),), ('data',)
    ), num_draws=config.evaluation.num_draws,
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


def write_arrays(workdir, space, answers, frames) -> None:
  """Writes design.npz, and expansion.npz where there are expansions."""
  longest = max((answer.nodes for answer in answers), key=len)
  _write_npz(
    workdir / 'design.npz', factors=np.array(space.names), nodes=longest,
    values=space.to_values(longest), images=np.array(frames.names),
    num_evaluations=np.array([len(answer.nodes) for answer in answers]),
  )
  arrays = {}
  for i, answer in enumerate(answers):
    if isinstance(answer.surrogate, expansions.Expansion):
      arrays[f'multi_indices_{i}'] = answer.expansion.basis.multi_indices
      arrays[f'coefficients_{i}'] = answer.expansion.coefficients
  if arrays:
    _write_npz(
      workdir / 'expansion.npz', factors=np.array(space.names),
      images=np.array(frames.names), **arrays,
    )


def _write_npz(path, **arrays) -> None:
  content = io.BytesIO()
  np.savez(content, **arrays)
  files.write_bytes(path, content.getvalue())


def _pixels(config) -> str:
  height, width = training_fields.image_size(config)
  return f'{height}' if height == width else f'{height} x {width}'


def provenance(
  config, trained, answers, evaluator, num_evaluations, seconds
) -> dict:
  """Returns what a reader needs to judge or repeat the run."""
  metrics = trained.metadata.metrics
  runs_of = [answer.num_evaluations for answer in answers]
  return {
    'model': f'{config.model.name}, {_pixels(config)} pixels, '
    f'{"restored" if trained.restored else "trained in this run"}',
    'validation_accuracy': metrics['validation_accuracy'],
    'num_evaluations': num_evaluations,
    'training data': trained.metadata.data,
    'design': f'{config.gpc.design}, {min(runs_of)} to {max(runs_of)} runs per '
    f'image; indices by {", ".join(sorted({a.method for a in answers}))}',
    # Indices of the probability expanded directly, not through the logits.
    'largest difference from direct indices, per image': [
      None if a.direct_gap is None else round(a.direct_gap, 3) for a in answers
    ],
    # Degree that a polynomial would need along each factor for 1 % of the
    # variance of the surrogate, as a rule smoother than the network.
    'degree that misses 1 % of the variance, per image': {
      name: [None if a.decay is None else a.decay.required_degrees[d, 0]
             for a in answers]
      for d, name in enumerate(answers[0].indices.names)
    },
    'batching': dataclasses.asdict(evaluator.batching),
    'stage_seconds': {name: round(s, 2) for name, s in seconds.items()},
    'training': {k: v for k, v in metrics.items() if k != 'history'},
    'config': config.to_dict(),
    'versions': runs.versions(),
  }


if __name__ == '__main__':
  app.run(runs.make_main(run))
