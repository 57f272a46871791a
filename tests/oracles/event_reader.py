"""Event files read back, slowly and with every checksum looked at."""

import struct

from jaxsens.training import events


def read(path):
  """Yields the fields of every event: {number: [values]}."""
  content = path.read_bytes()
  place = 0
  while place < len(content):
    length, check = struct.unpack_from('<QI', content, place)
    assert check == events.masked_crc(content[place:place + 8])
    message = content[place + 12:place + 12 + length]
    (check,) = struct.unpack_from('<I', content, place + 12 + length)
    assert len(message) == length and check == events.masked_crc(message)
    yield parse(message)
    place += 16 + length


def parse(message):
  """Returns the fields of a protobuf message: {number: [values]}."""
  fields, place = {}, 0

  def varint():
    nonlocal place
    value = shift = 0
    while True:
      byte = message[place]
      place += 1
      value |= (byte & 0x7F) << shift
      shift += 7
      if byte < 0x80:
        return value

  while place < len(message):
    number, kind = divmod(varint(), 8)
    if kind == 0:
      value = varint()
    elif kind == 2:
      length = varint()
      value, place = message[place:place + length], place + length
    else:
      form = {1: '<d', 5: '<f'}[kind]
      (value,) = struct.unpack_from(form, message, place)
      place += struct.calcsize(form)
    fields.setdefault(number, []).append(value)
  return fields
