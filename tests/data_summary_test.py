"""Tests of what is measured of a data set and of its page."""

import json
import os
import pathlib

from absl import flags
from absl.testing import flagsaver
import jax
import numpy as np
from PIL import Image
import pytest

from experiments import explore_data
from jaxsens.data import image_sets
from jaxsens.data import measurements
from jaxsens.data import similarity
from jaxsens.data import sources
from jaxsens.data import summary
from jaxsens.reports import data_page
from jaxsens.reports import data_results

KEY = jax.random.key(0)
SHARED = pathlib.Path(os.environ.get('JAXSENS_SHARED', '../shared')) / 'data'
CLASSES = ('ash', 'bolt <b>', '$x$')


def image_set(images, labels, names=None, groups=None):
  names = names or tuple(f'n{i}' for i in range(len(images)))
  return image_sets.ImageSet(
    images=images, labels=np.asarray(labels), names=tuple(names),
    class_names=CLASSES, groups=tuple(groups or names), description='noise',
  )


def noise(seed, number, size=(8, 6), channels=3):
  rng = np.random.default_rng(seed)
  levels = rng.integers(0, 256, (number, *size, channels))
  return (levels / 255).astype(np.float32)


def three_parts():
  """Noise; train/n1 = test/n0 = test/n1 (of another class); group g twice."""
  train, validation, test = noise(0, 6), noise(1, 3), noise(2, 4)
  test[:2] = train[1]
  return image_sets.Splits(
    image_set(train, [0, 1, 1, 1, 0, 0], groups='abcdgf'),
    image_set(validation, [0, 1, 0], groups='hgi'),
    image_set(test, [1, 0, 1, 1], groups='jklm'),
  )


def parts_of(splits):
  return [splits.train, splits.validation, splits.test]


@pytest.mark.parametrize('channels', [1, 3])
def test_mean_and_both_kinds_of_std_are_those_of_numpy(channels):
  first, second = noise(0, 5, (8, 6), channels), noise(1, 4, (3, 9), channels)
  second *= np.float32(0.2)
  second = (np.rint(255 * second) / 255).astype(np.float32)
  splits = image_sets.Splits(
    image_set(first, [0, 1, 2, 0, 1]), image_set(list(second), [0, 1, 1, 2]),
    image_set(first[:0], []),
  )
  found = summary.summarise(splits)
  pixels = np.concatenate([
    image.reshape(-1, channels).astype(np.float64)
    for image in (*first, *second)
  ])
  np.testing.assert_allclose(found.mean, pixels.mean(0), atol=1e-6)
  np.testing.assert_allclose(found.std_of_pixels, pixels.std(0), atol=1e-6)
  single = [image.std((0, 1), np.float64) for image in (*first, *second)]
  np.testing.assert_allclose(
    found.mean_std_of_images, np.mean(single, 0), atol=1e-6
  )
  assert (found.mean_std_of_images < found.std_of_pixels).all()
  assert found.sizes == (((8, 6), 5), ((3, 9), 4))


def test_duplicates_and_leakage_are_found_and_named():
  found = summary.summarise(three_parts())
  copies = ('train/n1', 'test/n0', 'test/n1')
  assert found.duplicates == found.leaking_duplicates == (copies,)
  assert found.labels_differ == (copies,)
  assert found.leaking_groups == (('g', ('train', 'validation')),)
  assert found.leaks
  np.testing.assert_array_equal(
    found.counts, [[3, 3, 0], [2, 1, 0], [1, 3, 0]]
  )
  line = summary.line(found)
  assert '\n' not in line
  for text in ('13 images: train 6 (ash 3, bolt <b> 3, $x$ 0)', '8 x 6',
               '2 exact duplicates', '1 duplicates, 1 groups'):
    assert text in line


def test_copies_within_a_part_do_not_leak():
  images = noise(0, 4)
  images[3] = images[0]
  found = summary.summarise(image_sets.Splits(
    image_set(images, [0, 0, 1, 0], groups='abac'),
    image_set(noise(1, 2), [0, 1], groups='de'),
    image_set(noise(2, 2), [0, 1], groups='ff'),
  ))
  assert found.duplicates == (('train/n0', 'train/n3'),)
  assert not found.leaks and not found.labels_differ
  assert 'no duplicate and no group in two parts' in summary.line(found)


def test_equal_pixels_of_another_shape_are_no_duplicate():
  image = noise(0, 1)[0]
  measured = measurements.measure(
    image_set([image, image.reshape(6, 8, 3), image.copy()], [0, 0, 0])
  )
  first, second, third = measured.digests
  assert first == third != second


def test_one_level_in_one_pixel_makes_another_image():
  images = np.repeat(noise(0, 1), 2, 0)
  images[1, 3, 2, 1] = np.abs(images[1, 3, 2, 1] - 1 / 255)
  measured = measurements.measure(image_set(images, [0, 0]))
  assert len(set(measured.digests)) == 2


def test_histograms_count_every_pixel_of_its_class():
  images = noise(0, 5)
  labels = [0, 2, 2, 0, 0]
  measured = measurements.measure(image_set(images, labels))
  for k in range(3):
    for c in range(3):
      chosen = images[np.array(labels) == k][..., c]
      expected = np.bincount(np.rint(255 * chosen).astype(int).ravel(),
                             minlength=256)
      np.testing.assert_array_equal(measured.histograms[k, c], expected)


def test_thumbnails_average_blocks_and_keep_images_of_their_size():
  images = noise(0, 2, (8, 12), 1)
  measured = measurements.measure(image_set(images, [0, 0]), thumbnail_size=4)
  blocks = images.reshape(2, 4, 2, 4, 3).mean((2, 4))
  np.testing.assert_allclose(
    measured.thumbnails[..., 0], blocks, atol=1e-6
  )
  same = measurements.measure(
    image_set(noise(0, 1, (4, 4)), [0]), thumbnail_size=4
  )
  np.testing.assert_allclose(same.thumbnails, noise(0, 1, (4, 4)), atol=1e-7)


def test_images_of_different_channels_are_refused_by_name():
  images = [noise(0, 1)[0], noise(0, 1, channels=1)[0]]
  with pytest.raises(ValueError, match='n1: 1 channels, .* have 3'):
    measurements.measure(image_set(images, [0, 0]))


def test_measured_parts_of_other_length_are_refused():
  splits = three_parts()
  measured = [measurements.measure(part) for part in parts_of(splits)]
  with pytest.raises(ValueError, match='test has 4 images but 3 are measured'):
    summary.summarise(splits, [*measured[:2], measured[1]])


# Similarity.


def smooth(seed, number, size=32):
  """Blobs, so that a compressed copy has nearly the same thumbnail."""
  small = noise(seed, number, (8, 8), 1)
  return np.kron(small, np.ones((1, size // 8, size // 8, 1)))


def test_near_duplicates_survive_brightness_contrast_noise_and_light():
  images = smooth(0, 30)
  copy = 0.1 + 0.7 * images[4]
  copy += 0.01 * np.random.default_rng(1).standard_normal(copy.shape)
  ramp = np.linspace(-1, 1, 32)
  copy += (0.3 * ramp + 0.2 * ramp[:, None] ** 2)[..., None]
  pairs, correlations = similarity.near_duplicates(
    np.concatenate([images, copy[None]]), threshold=0.95
  )
  np.testing.assert_array_equal(pairs, [[4, 30]])
  assert 0.95 < correlations[0] <= 1


def test_images_without_content_are_in_no_pair():
  flat = np.full((4, 32, 32, 1), 0.5)
  flat[1] += np.linspace(0, 0.3, 32)[:, None, None]
  pairs, _ = similarity.near_duplicates(flat, threshold=0.5)
  assert not len(pairs)


def test_pairs_of_all_chunks_are_found_closest_first():
  images = smooth(0, 2100).astype(np.float32)
  images[2050] = images[3]
  images[1500] = images[1030] + 0.02 * smooth(1, 1)[0]
  pairs, correlations = similarity.near_duplicates(images, threshold=0.97)
  np.testing.assert_array_equal(pairs, [[3, 2050], [1030, 1500]])
  assert correlations[0] > correlations[1]
  one, _ = similarity.near_duplicates(images, threshold=0.97, max_pairs=1)
  np.testing.assert_array_equal(one, [[3, 2050]])
  with pytest.raises(ValueError, match='threshold must lie in'):
    similarity.near_duplicates(images, threshold=1.5)


@pytest.mark.parametrize('number', [40, 700])
def test_components_are_those_of_the_full_decomposition(number):
  images = noise(0, number, (12, 12), 3) * np.linspace(1, 2, 12)[:, None, None]
  images += np.linspace(0, 3, number)[:, None, None, None]
  scores, shares = similarity.principal_components(images)
  flat = images.reshape(number, -1).astype(float)
  flat -= flat.mean(0)
  values, directions = np.linalg.eigh(flat.T @ flat)
  expected = flat @ directions[:, ::-1][:, :2]
  signs = np.sign((expected * scores).sum(0))
  np.testing.assert_allclose(scores, expected * signs, atol=1e-6)
  np.testing.assert_allclose(
    shares, values[::-1][:2] / values.sum(), rtol=1e-6
  )


def test_one_image_and_equal_images_have_no_components():
  for images in (noise(0, 1), np.repeat(noise(0, 1), 3, 0), noise(0, 0)):
    scores, shares = similarity.principal_components(images)
    assert scores.shape == (len(images), 2)
    np.testing.assert_allclose(scores, 0, atol=1e-5)
    assert np.isfinite(shares).all()


# The page.


def test_page_names_every_fault_and_escapes_what_it_is_given(tmp_path):
  result = explore_data.explore(KEY, three_parts(), 'Data <of> tests')
  faults = ' '.join(data_page.faults(result))
  for text in ('1 image with equal pixels in more than one', '1 group (clips',
               'different labels', '$x$ in train, $x$ in validation'):
    assert text in faults
  html = explore_data.write(tmp_path, result).read_text()
  assert 'Data &lt;of&gt; tests' in html and 'bolt &lt;b&gt;' in html
  assert '<of>' not in html and '<script' not in html
  assert 'verdict bad' in html and 'train/n1, test/n0, test/n1' in html
  stems = ('counts', 'examples', 'mean_images', 'histograms', 'components',
           'pairs')
  for stem in stems:
    with Image.open(tmp_path / f'{stem}.png') as picture:
      assert min(picture.size) > 100
  assert html.count('<img') == len(stems)
  numbers = json.loads((tmp_path / 'data.json').read_text())
  assert numbers['counts']['test'] == {'ash': 1, 'bolt <b>': 3, '$x$': 0}
  assert numbers['duplicates'] == [['train/n1', 'test/n0', 'test/n1']]
  assert numbers['class_means']['$x$'] == [None] * 3
  assert numbers['near_duplicates']['pairs'] == 0


def test_page_of_a_sound_set_says_so():
  splits = image_sets.Splits(*(
    image_set(noise(p, 6, channels=1), [0, 1, 2] * 2,
              [f'{p}-{i}' for i in range(6)]) for p in range(3)
  ))
  result = explore_data.explore(KEY, splits, 'Sound')
  assert not data_page.faults(result) and not result.pictured
  assert result.channel_names == ('gray',)


def test_pictured_pairs_are_across_parts_first_and_of_each_image_once():
  images = smooth(0, 3)
  copies = np.repeat(images[:1], 3, 0) + 0.01 * smooth(1, 3)
  splits = image_sets.Splits(
    image_set(np.concatenate([images, copies[:2]]), [0, 1, 2, 0, 0]),
    image_set(copies[2:], [0]), image_set(images[:0], []),
  )
  result = explore_data.explore(KEY, splits, 'Copies')
  assert len(result.near) == 6 and len(result.near_across) == 3
  assert result.pictured[0][0].across
  shown = [name for pair, *_ in result.pictured for name in pair.names]
  assert len(shown) == len(set(shown)) == 4
  assert data_results.as_dict(result)['near_duplicates']['pairs'] == 6


def test_options_are_read_as_values_or_texts():
  assert explore_data.parse_options(
    ['channels=1', 'skip_unreadable=True', 'form=jpeg', 'label_policy=a=b']
  ) == {'channels': 1, 'skip_unreadable': True, 'form': 'jpeg',
        'label_policy': 'a=b'}
  with pytest.raises(ValueError, match='expected name=value'):
    explore_data.parse_options(['channels'])


def run_main(**values):
  """Runs the command in this process, with these flags."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['explore_data'])
  with flagsaver.flagsaver(**values):
    explore_data.main(['explore_data'])


def test_command_writes_the_page_of_a_folder_and_explains_errors(
  tmp_path, capsys
):
  for name in 'ab':
    for i in range(3):
      path = tmp_path / 'tree' / name / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      pixels = np.rint(255 * noise(ord(name) + 10 * i, 1)[0]).astype(np.uint8)
      Image.fromarray(pixels).save(path)
  values = {'data': 'folder', 'root': str(tmp_path / 'tree'),
            'workdir': str(tmp_path / 'run')}
  run_main(**values)
  assert '6 images: train' in capsys.readouterr().out
  assert (tmp_path / 'run' / 'data.html').is_file()
  for changes, message in (
    ({'option': ['channels=1']}, r"error: .*convert\('L'\)"),
    ({'option': ['color=1']}, 'error: .*color'),
    ({'root': None}, 'error: .*give its root'),
    ({'data': 'trees'}, "error: unknown data source 'trees'"),
  ):
    with pytest.raises(SystemExit, match=message):
      run_main(**(values | changes))


def test_command_without_data_says_what_is_needed():
  with pytest.raises(SystemExit, match='--data=NAME is needed'):
    run_main()


# The registry and real data.


def test_every_source_has_defaults_that_its_loader_takes():
  for name, source in sources.SOURCES.items():
    code = source.load.__code__
    known = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    assert set(source.defaults) <= set(known), name
    required = set(known) - set(source.load.__kwdefaults__ or ())
    assert required - {'key', 'root'} <= set(source.defaults), name


@pytest.mark.skipif(
  not (SHARED / 'neu_det').is_dir(), reason=f'no images at {SHARED}'
)
def test_pair_of_equal_steel_images_is_found():
  splits = sources.load(
    'steel', KEY, root=SHARED / 'neu_det', **sources.find('steel').defaults
  )
  # Only one class, for speed; nothing is said of the others.
  patches = image_sets.Splits(*(
    part.take(np.flatnonzero(part.labels == 2)) for part in parts_of(splits)
  ))
  found = summary.summarise(patches)
  assert [
    {name.split('/')[1] for name in names} for names in found.duplicates
  ] == [{'patches_101', 'patches_105'}]
  assert not found.leaks


@pytest.mark.skipif(
  not (SHARED / 'cifar10').is_dir(), reason=f'no images at {SHARED}'
)
def test_cifar_has_the_published_mean_and_the_std_of_either_kind():
  splits = sources.load(
    'cifar10', KEY, root=SHARED / 'cifar10', validation_fraction=0.0
  )
  found = summary.summarise(splits)
  # Of all 50,000 training images: the mean, the standard deviation over all
  # pixels, and the mean of those of single images, which much published code
  # takes for it. The 6,102 here are a ninth of them.
  np.testing.assert_allclose(
    found.mean, [0.4914, 0.4822, 0.4465], atol=0.005
  )
  np.testing.assert_allclose(
    found.std_of_pixels, [0.2470, 0.2435, 0.2616], atol=0.003
  )
  np.testing.assert_allclose(
    found.mean_std_of_images, [0.2023, 0.1994, 0.2010], atol=0.003
  )
