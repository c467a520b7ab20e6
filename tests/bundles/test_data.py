"""Tests that a number always gives the same clip, and that captions describe it."""

from itertools import islice
from types import ModuleType

import numpy as np
import pytest

from bundles.tiny.data import captions, effects, music
from bundles.tiny.data.store import list_numbers

SECONDS = 3.0


@pytest.mark.parametrize("kind", effects.KINDS)
def test_every_effect_is_sound_and_its_own(kind: str):
    found = [e for e in map(effects.draw_effect, range(300)) if e.kind == kind][:4]
    clips = [effects.render(effect, SECONDS) for effect in found]
    for effect, clip in zip(found, clips, strict=True):
        assert clip.shape == (48000,)
        assert 0.1 < np.abs(clip).max() <= 0.8
        np.testing.assert_array_equal(clip, effects.render(effect, SECONDS))
    assert (clips[0] != clips[1]).any()


def test_captions_name_what_is_heard():
    draw = np.random.default_rng(0)
    for effect in map(effects.draw_effect, range(200)):
        caption = captions.describe_effect(effect, draw)
        assert any(word in caption for word in captions.SOUNDS[effect.kind])
    named = 0
    for piece in map(music.draw_piece, range(200)):
        caption = captions.describe_music(piece, draw)
        assert caption.strip()
        named += any(word in caption for word in captions.INSTRUMENTS[piece.family])
    assert named > 180
    piece = music.draw_piece(1)
    assert len({captions.describe_music(piece, draw) for _ in range(50)}) > 40


@pytest.mark.parametrize("kind", ["music", "sound"])
def test_what_is_held_out_is_never_trained_on(kind: str):
    trained, kept = (set(islice(list_numbers(kind, held_out), 300)) for held_out in (False, True))
    assert not trained & kept
    assert 0.05 < sum(number <= max(trained) for number in kept) / len(trained) < 0.2


def test_every_family_and_tempo_is_held_out_somewhere():
    pieces = [music.draw_piece(number) for number in islice(list_numbers("music", True), 300)]
    assert {piece.family for piece in pieces} == set(music.FAMILIES)
    assert {piece.tempo for piece in pieces} == set(music.TEMPI)


def test_a_piece_renders_the_same_whatever_was_before(fluid: ModuleType):
    renderer = fluid.Renderer()
    alone = renderer.render(music.draw_piece(5), SECONDS)
    renderer.render(music.draw_piece(2), SECONDS)
    again = renderer.render(music.draw_piece(5), SECONDS)
    assert alone.shape == (48000,)
    assert 0.05 < np.abs(alone).max() < 1
    np.testing.assert_allclose(again, alone, atol=2e-3)
