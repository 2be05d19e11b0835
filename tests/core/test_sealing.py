"""A sealed value opens with its key and for its purpose, and in no other way."""

from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder_core.errors import ConfigurationError
from encoder_core.sealing import CannotOpen, KeyRing, key_id_of

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
PURPOSE = "job-secrets:0190"


def text_of(*keys: bytes) -> str:
    return ",".join(base64.b64encode(key).decode() for key in keys)


@given(st.binary(max_size=200), st.text(max_size=40))
def test_what_was_sealed_opens(value: bytes, purpose: str) -> None:
    keys = KeyRing([OLD])
    assert keys.open(keys.seal(value, purpose=purpose), purpose=purpose) == value


def test_the_same_value_is_sealed_differently_each_time() -> None:
    keys = KeyRing([OLD])
    assert keys.seal(b"value", purpose=PURPOSE) != keys.seal(b"value", purpose=PURPOSE)


def test_a_value_does_not_open_for_another_purpose() -> None:
    keys = KeyRing([OLD])
    with pytest.raises(CannotOpen, match="belongs elsewhere"):
        keys.open(keys.seal(b"value", purpose=PURPOSE), purpose="job-secrets:0191")


def test_a_change_of_any_single_byte_is_noticed() -> None:
    keys = KeyRing([OLD])
    sealed = keys.seal(b"value", purpose=PURPOSE)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(CannotOpen):
            keys.open(bytes(changed), purpose=PURPOSE)


def test_a_value_that_was_cut_is_noticed() -> None:
    keys = KeyRing([OLD])
    sealed = keys.seal(b"value", purpose=PURPOSE)
    for length in range(len(sealed)):
        with pytest.raises(CannotOpen):
            keys.open(sealed[:length], purpose=PURPOSE)


def test_after_a_rotation_old_values_open_and_new_ones_use_the_new_key() -> None:
    sealed = KeyRing([OLD]).seal(b"value", purpose=PURPOSE)
    both = KeyRing([NEW, OLD])
    assert both.open(sealed, purpose=PURPOSE) == b"value"
    assert key_id_of(sealed) == KeyRing([OLD]).current_key_id
    assert key_id_of(both.seal(b"value", purpose=PURPOSE)) == KeyRing([NEW]).current_key_id


def test_rewrapping_moves_a_value_to_the_new_key_so_that_the_old_one_can_go() -> None:
    sealed = KeyRing([OLD]).seal(b"value", purpose=PURPOSE)
    rewrapped = KeyRing([NEW, OLD]).rewrap(sealed, purpose=PURPOSE)
    assert KeyRing([NEW]).open(rewrapped, purpose=PURPOSE) == b"value"
    with pytest.raises(CannotOpen, match="not among those in ENCODER_SECRET_KEY"):
        KeyRing([NEW]).open(sealed, purpose=PURPOSE)


def test_rewrapping_for_another_purpose_is_refused() -> None:
    keys = KeyRing([OLD])
    with pytest.raises(CannotOpen):
        keys.rewrap(keys.seal(b"value", purpose=PURPOSE), purpose="other")


def test_keys_are_read_from_text_newest_first() -> None:
    keys = KeyRing.from_text(f" {text_of(NEW)} , {text_of(OLD)} ")
    assert keys.current_key_id == KeyRing([NEW]).current_key_id
    assert keys.open(KeyRing([OLD]).seal(b"value", purpose=PURPOSE), purpose=PURPOSE) == b"value"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("secret", id="a password"),
        pytest.param(text_of(OLD[:16]), id="a key too short"),
        pytest.param(text_of(OLD) + ",", id="an empty second key"),
        pytest.param("schlüssel", id="letters that base64 does not know"),
    ],
)
def test_a_wrong_key_is_refused_with_the_command_that_makes_a_right_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32"):
        KeyRing.from_text(text)


def test_a_ring_without_keys_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        KeyRing([])


def test_nothing_of_the_value_is_readable() -> None:
    value = os.urandom(16)
    assert value not in KeyRing([OLD]).seal(value, purpose=PURPOSE)
