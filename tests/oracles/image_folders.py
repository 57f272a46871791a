"""Folders of small images, written in the layouts that the loaders read."""

import json

import numpy as np
from PIL import Image


def write_image(path, value=100, size=(8, 10), mode='L'):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.full((size[1], size[0]), value, np.uint8)
  pixels[0, 0] = 255
  Image.fromarray(pixels).convert(mode).save(path)
  return path


def write_json(root, part, rows):
  for name in rows:
    write_image(root / part / name)
  path = root / part / f'{part}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(rows))
  return path


def clips(part_of_class):
  """Returns json rows from {label: {clip: number of frames}}."""
  return {
      f'{clip}/frame_{label}_{i:03d}.png': label
      for label, sizes in part_of_class.items()
      for clip, count in sizes.items()
      for i in range(count)
  }
