"""The published parameters of ImageNet-C and CIFAR-10-C, severity 1 to 5.

Numbers only; `severity` says what they drive. Lengths are in pixels of images
of 224 x 224 and of 32 x 32.

References:
  Hendrycks and Dietterich, Benchmarking neural network robustness to common
    corruptions and perturbations, ICLR 2019, and the tables of its code.
"""

# Benchmark -> corruption -> five rows: a number or a tuple. The longer ones:
#   elastic_transform: alpha, sigma, affine, in units of `ELASTIC_UNIT`.
#   zoom_blur: end and step of NumPy's arange from 1.
#   snow: loc, scale, zoom, threshold, radius, sigma, mix.
#   spatter: loc, scale, sigma, threshold, strength; rows 4 and 5 are mud.
TABLES = {
  'imagenet_c': {
    'gaussian_noise': (0.08, 0.12, 0.18, 0.26, 0.38),
    'shot_noise': (60, 25, 12, 5, 3),
    'impulse_noise': (0.03, 0.06, 0.09, 0.17, 0.27),
    'defocus_blur': ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    'glass_blur': (
      (0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2),
    ),
    'motion_blur': ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    'zoom_blur': (
      (1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03),
    ),
    'snow': (
      (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
      (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
      (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
      (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
      (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    'frost': ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    'fog': ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    'brightness': (0.1, 0.2, 0.3, 0.4, 0.5),
    'contrast': (0.4, 0.3, 0.2, 0.1, 0.05),
    'elastic_transform': (
      (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02),
      (0.12, 0.01, 0.02),
    ),
    'pixelate': (0.6, 0.5, 0.4, 0.3, 0.25),
    'jpeg_compression': (25, 18, 15, 10, 7),
    'speckle_noise': (0.15, 0.2, 0.35, 0.45, 0.6),
    'gaussian_blur': (1, 2, 3, 4, 6),
    'spatter': (
      (0.65, 0.3, 4, 0.69, 0.6), (0.65, 0.3, 3, 0.68, 0.6),
      (0.65, 0.3, 2, 0.68, 0.5), (0.65, 0.3, 1, 0.65, 1.5),
      (0.67, 0.4, 1, 0.65, 1.5),
    ),
    'saturate': ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
  },
  'cifar_c': {
    'gaussian_noise': (0.04, 0.06, 0.08, 0.09, 0.10),
    'shot_noise': (500, 250, 100, 75, 50),
    'impulse_noise': (0.01, 0.02, 0.03, 0.05, 0.07),
    'defocus_blur': ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    'glass_blur': (
      (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2),
    ),
    'motion_blur': ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    'zoom_blur': (
      (1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01),
    ),
    'snow': (
      (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
      (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
      (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
      (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
      (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    'frost': ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    'fog': ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    'brightness': (0.05, 0.1, 0.15, 0.2, 0.3),
    'contrast': (0.75, 0.5, 0.4, 0.3, 0.15),
    'elastic_transform': (
      (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05),
      (0.1, 0.03, 0.03),
    ),
    'pixelate': (0.95, 0.9, 0.85, 0.75, 0.65),
    'jpeg_compression': (80, 65, 58, 50, 40),
    'speckle_noise': (0.06, 0.1, 0.12, 0.16, 0.2),
    'gaussian_blur': (0.4, 0.6, 0.7, 0.8, 1),
    'spatter': (
      (0.62, 0.1, 0.7, 0.7, 0.5), (0.65, 0.1, 0.8, 0.7, 0.5),
      (0.65, 0.3, 1, 0.69, 0.5), (0.65, 0.1, 0.7, 0.69, 0.6),
      (0.65, 0.1, 0.5, 0.68, 0.6),
    ),
    'saturate': ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
  },
}

# Height and width of the images of a benchmark, pixels.
SIDES = {'imagenet_c': 224, 'cifar_c': 32}
# Pixels; 244, not 224, is what ImageNet-C was made with.
ELASTIC_UNIT = {'imagenet_c': 244, 'cifar_c': 32}

# Corruption -> family, what it stands for, what an operator says.
CATALOGUE = {
  'gaussian_noise': (
    'noise and sensor', 'Noise of equal strength in dark and bright parts.',
    'the picture is grainy',
  ),
  'shot_noise': (
    'noise and sensor', 'Few photons reach each pixel.',
    'grain in the bright parts',
  ),
  'impulse_noise': (
    'noise and sensor', 'Single values are lost and become black or white.',
    'salt and pepper in the picture',
  ),
  'defocus_blur': (
    'optics', 'The lens is out of focus.', 'edges are soft everywhere',
  ),
  'glass_blur': (
    'optics', 'The camera looks through rough or frosted glass.',
    'the window in front of the lens is scratched matt',
  ),
  'motion_blur': (
    'optics', 'Camera or part moves during the exposure, in any direction '
    'within 45 degrees of the rows.', 'the picture is smeared to one side',
  ),
  'zoom_blur': (
    'optics', 'The camera moves towards the part during the exposure.',
    'sharp in the middle and smeared at the rim',
  ),
  'snow': (
    'weather and dirt', 'Snow falls between camera and part.',
    'white streaks in outdoor pictures',
  ),
  'frost': (
    'weather and dirt', 'Ice grows on the window in front of the camera.',
    'ice flowers on the glass',
  ),
  'fog': (
    'weather and dirt', 'Uneven fog or steam takes contrast away.',
    'white veil over the picture',
  ),
  'brightness': (
    'photometry', 'The light is stronger; values are added.',
    'everything is too bright',
  ),
  'contrast': (
    'photometry', 'The values move together about their mean.',
    'the picture looks flat',
  ),
  'elastic_transform': (
    'geometry', 'The picture is sheared a little and bent locally.',
    'straight edges look wavy',
  ),
  'pixelate': (
    'noise and sensor', 'The picture was stored small and enlarged.',
    'the picture consists of squares',
  ),
  'jpeg_compression': (
    'noise and sensor', 'The picture was compressed strongly.',
    'squares in smooth areas',
  ),
  'speckle_noise': (
    'noise and sensor', 'Each pixel has a gain of its own.',
    'bright parts look sandy',
  ),
  'gaussian_blur': (
    'optics', 'The picture is smoothed by a Gaussian.',
    'fine texture is gone',
  ),
  'spatter': (
    'weather and dirt', 'Splashes of water, above severity 3 of mud, lie on '
    'the window in front of the camera.', 'splashes on the glass',
  ),
  'saturate': (
    'photometry', 'Colours are too pale up to severity 2 and too strong from '
    'severity 3.', 'the colours look wrong',
  ),
}
