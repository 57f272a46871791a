"""One class for an image of several defects, by a named policy.

A mask says of each pixel which defects it has; a classifier wants one class of
the whole image. There is no right answer, so the policy has no default:

  binary   0 without a defect, 1 with any
  single   0 without a defect, else 1 + the defect; images that have more than
           one kind are left out
  largest  0 without a defect, else 1 + the defect that covers most pixels, the
           first of equals
"""

from collections.abc import Sequence

import numpy as np

POLICIES = ('binary', 'single', 'largest')


def label(areas: np.ndarray, policy: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the class of each image and whether the image is kept.

  Args:
    areas: pixels of each kind of defect, (N, M).
    policy: one of `POLICIES`.

  Returns:
    labels: int32 (N,).
    kept: bool (N,).

  Raises:
    ValueError: there is no such policy.
  """
  check(policy)
  areas = np.asarray(areas)
  present = (areas > 0).sum(1)
  kept = np.ones(len(areas), bool)
  if policy == 'binary':
    return (present > 0).astype(np.int32), kept
  if policy == 'single':
    kept = present <= 1
  labels = np.where(present > 0, 1 + areas.argmax(1), 0)
  return labels.astype(np.int32), kept


def class_names(
  policy: str, none: str, defects: Sequence[str]
) -> tuple[str, ...]:
  """Returns the names of the classes under a policy.

  Args:
    policy: one of `POLICIES`.
    none: name of images without a defect.
    defects: names of the kinds of defects.
  """
  check(policy)
  return (none, 'defect') if policy == 'binary' else (none, *defects)


def check(policy: str) -> None:
  """Raises ValueError if there is no such policy."""
  if policy not in POLICIES:
    raise ValueError(f'label_policy must be one of {POLICIES}, got {policy!r}.')
