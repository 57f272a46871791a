import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import convolutions
from tests.models import derivatives


def _images(batch, size, channels):
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


@pytest.mark.parametrize('size', [1, 2, 7, 8])
def test_max_pool_equals_reduce_window(size):
  images = _images(2, size, 3)
  expected = nnx.max_pool(images, (3, 3), (2, 2), ((1, 1), (1, 1)))
  np.testing.assert_array_equal(convolutions.max_pool(images), expected)


@pytest.mark.parametrize(
  'size, stride, kernel_size',
  [(1, 1, 3), (2, 1, 3), (3, 1, 3), (4, 2, 3), (9, 2, 3), (9, 1, 1), (9, 2, 1),
   (9, 2, 7), (6, 1, 5), (13, 1, 5)],
)  # fmt: skip
def test_convolution_and_its_gradient_equal_xlas_at_every_size(
  size, stride, kernel_size
):
  images = _images(2, size, 3)
  rng = np.random.default_rng(2)
  kernel = rng.normal(size=(kernel_size, kernel_size, 3, 4)).astype(np.float32)

  def xla(images, kernel):
    return jax.lax.conv_general_dilated(
      images,
      kernel,
      (stride, stride),
      ((kernel_size // 2, kernel_size // 2),) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  ours = functools.partial(convolutions.convolve, stride=stride)
  np.testing.assert_allclose(
    ours(images, kernel), xla(images, kernel), atol=1e-4
  )
  for argument in (0, 1):
    gradients = [
      jax.grad(lambda *x, f=f: jnp.sum(f(*x) ** 2), argument)(images, kernel)
      for f in (ours, xla)
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-3)


def test_small_images_of_few_channels_run_by_rows(monkeypatch):
  images, kernel = _images(2, 32, 3), jnp.ones((5, 5, 3, 6))
  run = lambda: str(jax.make_jaxpr(
    functools.partial(convolutions.convolve, padding=0)
  )(images, kernel))
  assert 'conv_general_dilated' not in run()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert 'conv_general_dilated' in run()


@pytest.mark.parametrize('height, width', [(19, 20), (22, 25)])
@pytest.mark.parametrize('padding', ['torch', 'same', 0])
@pytest.mark.parametrize('size, out_channels', [(3, 8), (7, 8)])
def test_stem_equals_xlas_in_every_mode_of_differentiation(
  monkeypatch, height, width, padding, size, out_channels
):
  rng = np.random.default_rng(2)
  images, tangent = (
    jnp.asarray(rng.normal(size=(2, height, width, 3)), jnp.float32)
    for _ in range(2)
  )
  kernel, step = (
    jnp.asarray(rng.normal(size=(size, size, 3, out_channels)), jnp.float32)
    for _ in range(2)
  )
  pads = {'torch': ((size // 2,) * 2,) * 2, 'same': 'SAME', 0: 'VALID'}

  def xla(images, kernel):
    return jax.lax.conv_general_dilated(
      images, kernel, (2, 2), pads[padding],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  monkeypatch.setattr(jax, 'default_backend', lambda: 'cpu')
  ours = functools.partial(convolutions.convolve, stride=2, padding=padding)
  assert '_convolve_stem' in str(jax.make_jaxpr(ours)(images, kernel))

  # Of the largest: sines of sums of 147 terms, and their derivatives.
  derivatives.assert_same(ours, xla, (images, kernel), (tangent, step), 2e-5)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size, padding', [(3, 'torch'), (5, 0)])
def test_dense_form_equals_xlas_in_every_mode_of_differentiation(
  size, padding, stride
):
  rng = np.random.default_rng(3)
  shapes = (2, 17, 18, 30), (size, size, 30, 7)
  arguments, tangents = (
    tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    for _ in range(2)
  )
  pads = ((size // 2,) * 2,) * 2 if padding == 'torch' else 'VALID'

  def xla(images, kernel):
    return jax.lax.conv_general_dilated(
      images, kernel, (stride, stride), pads,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  ours = functools.partial(
    convolutions.convolve, stride=stride, padding=padding
  )
  assert '_convolve_dense' in str(jax.make_jaxpr(ours)(*arguments))
  # Sines of sums of up to 750 terms.
  derivatives.assert_same(ours, xla, arguments, tangents, 1e-4)


def test_other_platforms_and_images_run_the_plain_stem(monkeypatch):
  kernel = jnp.ones((7, 7, 3, 4))
  run = functools.partial(convolutions.convolve, stride=2)
  for backend, channels in (('gpu', 3), ('cpu', 1)):
    monkeypatch.setattr(jax, 'default_backend', lambda name=backend: name)
    images = _images(1, 20, channels)
    jaxpr = jax.make_jaxpr(run)(images, kernel[:, :, :channels])
    assert '_convolve_stem' not in str(jaxpr)


@pytest.mark.parametrize('size', [2, 3, 4, 5, 9])
@pytest.mark.parametrize('window, stride', [(3, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize('padding', [0, 1])
def test_max_pool_with_ceil_equals_torchs(size, window, stride, padding):
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  if size + 2 * padding < window:
    pytest.skip('no window fits')
  images = _images(2, size, 3)
  expected = torch.nn.functional.max_pool2d(
    torch.from_numpy(images.transpose(0, 3, 1, 2)), window, stride, padding,
    ceil_mode=True,
  )
  actual = convolutions.max_pool(
    images, size=window, stride=stride, padding=padding, ceil=True
  )
  np.testing.assert_array_equal(actual, expected.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize('height, width', [(5, 9), (8, 6), (13, 13)])
@pytest.mark.parametrize('size, stride', [(2, 2), (3, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize('padding', [0, 'torch', 'same'])
def test_gradient_of_max_pool_equals_xlas_with_and_without_ties(
  height, width, size, stride, padding
):
  rng = np.random.default_rng(3)
  images = rng.integers(0, 3, (2, height, width, 3)).astype(np.float32)
  pads = convolutions.padding_of(padding, size, stride, (height, width))
  ours = functools.partial(
    convolutions.max_pool, size=size, stride=stride, padding=padding
  )
  xla = lambda x: jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, stride, stride, 1),
    ((0, 0), *pads, (0, 0)),
  )
  maxima, pull = jax.vjp(ours, images)
  expected, expected_pull = jax.vjp(xla, images)
  np.testing.assert_array_equal(maxima, expected)
  cotangent = rng.normal(size=maxima.shape).astype(np.float32)
  gradient, = pull(cotangent)
  np.testing.assert_allclose(gradient, *expected_pull(cotangent), atol=1e-6)
  tangent = rng.normal(size=images.shape).astype(np.float32)
  pushed = jax.jvp(ours, (images,), (tangent,))[1]
  np.testing.assert_allclose(
    np.vdot(pushed, cotangent), np.vdot(tangent, gradient), rtol=1e-4, atol=1e-4
  )


def test_max_pool_differentiates_twice_in_every_order():
  x = _images(2, 6, 2)
  value = lambda x: jnp.sum(jnp.sin(convolutions.max_pool(x)))
  tangent = jnp.ones_like(x)
  forward_over_reverse = jax.jvp(jax.grad(value), (x,), (tangent,))[1]
  reverse_over_reverse = jax.grad(lambda x: jnp.sum(jax.grad(value)(x)))(x)
  np.testing.assert_allclose(
    forward_over_reverse, reverse_over_reverse, atol=1e-5
  )
  assert np.abs(forward_over_reverse).max() > 0.1
  single = jax.vmap(jax.grad(lambda image: value(image[None])))(x)
  np.testing.assert_allclose(single, jax.grad(value)(x), atol=1e-6)


def test_other_platforms_run_xlas_max_pool(monkeypatch):
  images = _images(2, 7, 6)
  expected = convolutions.max_pool(images)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  forward = jax.make_jaxpr(convolutions.max_pool)(images)
  assert 'reduce_window_max' in str(forward)
  np.testing.assert_array_equal(convolutions.max_pool(images), expected)


@pytest.mark.parametrize('size', [1, 2, 5, 8])
@pytest.mark.parametrize('window, stride', [(3, 1), (3, 2), (5, 2), (1, 2)])
@pytest.mark.parametrize('padding', ['torch', 'same', 0])
def test_convolution_of_each_channel_equals_xlas_grouped_one(
  size, window, stride, padding
):
  if padding == 0 and size < window:
    pytest.skip('no window fits')
  images = _images(2, size, 6)
  rng = np.random.default_rng(2)
  kernel = rng.normal(size=(window, window, 1, 6)).astype(np.float32)
  pads = {'torch': ((window // 2,) * 2,) * 2, 'same': 'SAME', 0: 'VALID'}

  def xla(images, kernel):
    return jax.lax.conv_general_dilated(
      images, kernel, (stride, stride), pads[padding],
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=6,
    )

  ours = functools.partial(
    convolutions.convolve, stride=stride, padding=padding
  )
  np.testing.assert_allclose(
    ours(images, kernel), xla(images, kernel), atol=1e-5
  )
  for argument in (0, 1):
    gradients = [
      jax.grad(lambda *x, f=f: jnp.sum(f(*x) ** 2), argument)(images, kernel)
      for f in (ours, xla)
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)


def test_other_platforms_run_the_grouped_convolution(monkeypatch):
  images, kernel = _images(2, 7, 6), jnp.ones((3, 3, 1, 6))
  expected = convolutions.convolve(images, kernel)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  jaxpr = str(jax.make_jaxpr(convolutions.convolve)(images, kernel))
  assert 'feature_group_count=6' in jaxpr
  np.testing.assert_allclose(
    convolutions.convolve(images, kernel), expected, atol=1e-5
  )


@pytest.mark.parametrize('side', [1, 5, 8, 224])
@pytest.mark.parametrize('size, stride', [(1, 1), (3, 1), (3, 2), (7, 2)])
def test_same_padding_equals_xlas(side, size, stride):
  (top, bottom), _ = convolutions.padding_of('same', size, stride, (side, 9))
  assert [(top, bottom)] == jax.lax.padtype_to_pads(
    (side,), (size,), (stride,), 'SAME'
  )


def test_unknown_padding_is_refused():
  with pytest.raises(ValueError, match="'same' or a number, got 'valid'"):
    convolutions.padding_of('valid', 3, 1, (5, 5))


@pytest.mark.parametrize('size, channels', [(3, 5), (7, 1), (7, 3), (1, 4)])
def test_forms_for_second_derivatives_equal_the_others(size, channels):
  rng = np.random.default_rng(size)
  x = jnp.asarray(rng.normal(size=(2, 17, 16, channels)), jnp.float32)
  kernel = jnp.asarray(
    rng.normal(size=(size, size, channels, 6)), jnp.float32
  )

  def penalised(kernel):
    def total(x):
      y = convolutions.convolve(x, kernel, stride=2)
      return jnp.sum(jnp.sin(y)), y

    gradient, y = jax.grad(total, has_aux=True)(x)
    return jnp.sum(gradient**2), y

  both = jax.jit(jax.value_and_grad(penalised, has_aux=True))
  expected = both(kernel)
  with convolutions.differentiated_twice():
    again = jax.jit(jax.value_and_grad(penalised, has_aux=True))
    found = again(kernel)
  for one, other in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    scale = np.abs(other).max()
    np.testing.assert_allclose(one, other, atol=2e-5 * scale)
  text = lambda f: f.lower(kernel).as_text()
  with convolutions.differentiated_twice():
    assert 'convolution' not in text(jax.jit(lambda k: penalised(k)))
  if size > 1:
    assert 'convolution' in text(jax.jit(lambda k: penalised(k)))
