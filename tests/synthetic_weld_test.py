"""Tests of the procedural welding frames."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.data.synthetic import textures
from jaxsens.data.synthetic import weld

# One size for nearly all tests, since each is compiled for itself.
SIZE = weld.frame_size(48)


def _six(seed=0):
  return weld.sample_parameters(jax.random.key(seed), 6, np.arange(6))


def _one(parameters, i):
  return {name: values[i] for name, values in parameters.items()}


class TexturesTest(parameterized.TestCase):

  def test_soft_step_is_half_at_the_edge_and_flat_beyond_its_width(self):
    values = textures.soft_step(jnp.array([-1.0, 0.0, 1.0]), 0.5)
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0], atol=1e-7)

  @parameterized.parameters((5, 40), (40, 5), (17, 17))
  def test_rows_of_the_interpolation_matrix_sum_to_one(self, cells, pixels):
    matrix = textures.interpolation_matrix(cells, pixels)
    self.assertEqual(matrix.shape, (pixels, cells))
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-6)

  def test_coarse_field_is_the_same_picture_at_every_resolution(self):
    key = jax.random.key(3)
    fine = textures.fractal_field(key, (120, 120), (5,), (1.0,))
    coarse = textures.fractal_field(key, (40, 40), (5,), (1.0,))
    means = fine.reshape(40, 3, 40, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, means, atol=0.02)

  def test_field_has_about_the_standard_deviation_of_its_amplitude(self):
    field = textures.fractal_field(
        jax.random.key(0), (200, 200), (100,), (0.7,)
    )
    # 10,000 independent cells; five standard errors of a deviation are 2.5 %,
    # and the spline itself lies between 0.46 and 0.5 before the factor 2.
    self.assertBetween(float(field.std()), 0.7 * 0.85, 0.7 * 1.05)


class SampleParametersTest(parameterized.TestCase):

  def test_same_key_draws_the_same_parameters(self):
    first, second = _six(), _six()
    for name in first:
      np.testing.assert_array_equal(first[name], second[name])

  def test_other_key_draws_other_parameters_and_textures(self):
    first, second = _six(0), _six(1)
    self.assertFalse(np.any(first['exposure'] == second['exposure']))
    self.assertFalse(np.all(first['noise_key'] == second['noise_key']))

  def test_parameters_lie_in_the_range_of_their_class(self):
    labels = np.arange(600) % 6
    p = weld.sample_parameters(jax.random.key(0), 600, labels)
    for label, class_name in enumerate(weld.CLASS_NAMES):
      changed = weld.CLASS_PARAMETERS[class_name]
      for name, default in weld.PARAMETERS.items():
        low, high = changed.get(name, default)
        values = p[name][labels == label]
        if name == 'joint_offset':
          values, low = np.abs(values), max(low, 0.0)
        self.assertTrue(
            np.all((values >= low - 1e-6) & (values <= high + 1e-6)),
            f'{class_name}: {name}',
        )

  def test_classes_change_only_parameters_that_exist(self):
    for name, changed in weld.CLASS_PARAMETERS.items():
      self.assertIn(name, weld.CLASS_NAMES)
      self.assertLessEqual(set(changed), set(weld.PARAMETERS))

  def test_joint_of_misaligned_welds_lies_on_both_sides(self):
    p = weld.sample_parameters(jax.random.key(0), 400, np.full(400, 4))
    # Five standard errors of a fraction of 1/2 among 400.
    self.assertBetween(np.mean(p['joint_offset'] > 0), 0.375, 0.625)

  def test_only_burn_through_has_a_hole_and_only_lack_of_fusion_strands(self):
    labels = np.arange(120) % 6
    p = weld.sample_parameters(jax.random.key(0), 120, labels)
    np.testing.assert_array_equal(p['hole_radius'] > 0, labels == 1)
    np.testing.assert_array_equal(p['strand_offset'] > 0, labels == 3)

  @parameterized.parameters(-1, 6)
  def test_label_out_of_range_raises(self, label):
    with self.assertRaisesRegex(ValueError, r'labels must lie in \[0, 6\)'):
      weld.sample_parameters(jax.random.key(0), 2, [0, label])

  def test_labels_of_another_number_raise(self):
    with self.assertRaisesRegex(ValueError, r'shape \(3,\), got \(2,\)'):
      weld.sample_parameters(jax.random.key(0), 3, [0, 1])


class RenderTest(parameterized.TestCase):

  def test_images_have_shape_range_and_detail(self):
    images = weld.render_all(_six(), SIZE)
    self.assertEqual(images.shape, (6, *SIZE, 1))
    self.assertEqual(images.dtype, np.float32)
    self.assertTrue(np.all((images >= 0.0) & (images <= 1.0)))
    self.assertTrue(np.all(images.std(axis=(1, 2, 3)) > 0.05))

  def test_kept_parameters_reproduce_each_image(self):
    parameters = _six()
    images = weld.render_all(parameters, SIZE)
    draw = jax.jit(lambda p: weld.render(p, SIZE))
    for i in range(6):
      again = draw(_one(parameters, i))
      np.testing.assert_allclose(again, images[i], atol=2e-5)

  def test_same_parameters_give_bitwise_the_same_images(self):
    first = weld.render_all(_six(), SIZE)
    np.testing.assert_array_equal(first, weld.render_all(_six(), SIZE))

  def test_image_does_not_depend_on_the_others_of_its_chunk(self):
    labels = np.arange(20) % 6
    p = weld.sample_parameters(jax.random.key(0), 20, labels)
    images = weld.render_all(p, SIZE)
    alone = weld.render_all({n: v[17:18] for n, v in p.items()}, SIZE)
    np.testing.assert_array_equal(alone[0], images[17])

  def test_larger_picture_shows_the_same_frame(self):
    parameters = {n: v[:1] for n, v in _six().items()}
    parameters['noise'] = np.zeros(1, np.float32)
    small = weld.render_all(parameters, SIZE)[0]
    large = weld.render_all(parameters, weld.frame_size(192))[0]
    reduced = jax.image.resize(large, small.shape, 'bilinear', antialias=True)
    self.assertLess(np.abs(small - reduced).mean(), 0.02)

  def test_frame_size_of_800_is_that_of_the_real_frames(self):
    self.assertEqual(weld.frame_size(800), (974, 800))

  def test_nozzle_is_dark_and_electrode_bright_where_parameters_say(self):
    parameters = _six()
    width = SIZE[1]
    images = weld.render_all(parameters, SIZE)[..., 0]
    for i in range(6):
      p = _one(parameters, i)
      axis = p['nozzle_x'] + p['electrode_offset'] + 0.5
      tip = p['nozzle_bottom'] + p['electrode_length']
      row = int((tip - 0.03) * width)
      self.assertGreater(images[i, row, int(axis * width)], 0.5)
      column = int((p['nozzle_x'] + 0.5 + 0.2) * width)
      above = int(max(0.3 * p['nozzle_bottom'] * width, 1))
      self.assertLess(images[i, above, column], 0.2)

  def test_joint_makes_its_column_darker_than_the_plate_beside_it(self):
    parameters = {n: v[4:5] for n, v in _six().items()}
    parameters |= {
        'joint_offset': np.array([0.24], np.float32),
        'joint_step': np.array([0.0], np.float32),
        'bead_drift': np.array([0.0], np.float32),
    }
    plain = parameters | {'joint_contrast': np.array([0.0], np.float32)}
    with_joint, without = (
        weld.render_all(p, SIZE)[0, 45:, :, 0].mean(axis=0)
        for p in (parameters, plain)
    )
    names = ('nozzle_x', 'electrode_offset', 'bead_offset', 'joint_offset')
    expected = 0.5 + sum(float(parameters[n][0]) for n in names)
    darkest = (np.argmax(without - with_joint) + 0.5) / SIZE[1]
    self.assertAlmostEqual(darkest, expected, delta=1.5 / SIZE[1])
