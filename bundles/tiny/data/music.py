"""Composes short pieces of music from a small grammar.

A piece is drawn from its number alone: the leading family of instruments, one of four tempi, the
pattern of a genre, a key, a register and a density, and whether there are drums and bass.

The models that learn from it have a few million weights and are trained for hours on two cores, so
the variety is limited: three neighbouring keys and their relative minors, two levels of loudness,
notes that begin on the codec's frames and always sound the same, and chords that repeat within four
seconds. After its beginning, a piece repeats what came before at a distance given by its tempo.
Such a model learns to copy first, and the beat with it.
"""

from dataclasses import dataclass

import numpy as np

# General MIDI programs, from 0.
FAMILIES = {
    "piano": 0,
    "guitar": 25,
    "strings": 48,
    "flute": 73,
    "brass": 61,
    "organ": 19,
    "bells": 9,
    "synth": 80,
}
# Codec frames, 1/50 s, per sixteenth: 68, 94, 125 and 150 beats per minute. With tempi between
# frames that varied by 3 %, a model of this size learned no beat. A beat tracker that is wrong by
# an octave can still tell these tempi apart.
TEMPI = {"slow": 11, "medium": 8, "fast": 6, "very fast": 5}
FRAME_S = 0.02
# Sixteenths per chord. A progression of four repeats after 3.5, 2.6, 3.8 and 3.2 s.
CHORD = {"slow": 4, "medium": 4, "fast": 8, "very fast": 8}
GENRES = ("ambient", "jazz", "rock", "techno", "classical", "folk", "funk", "blues")
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
# Major keys in semitones above C; a minor piece has the notes of one of them.
KEYS = (0, 5, 7)
SOFT, LOUD = 72, 108
# The scale and velocity of each mood.
MOODS = {
    "happy": (MAJOR, LOUD),
    "bright": (MAJOR, LOUD),
    "calm": (MAJOR, SOFT),
    "dreamy": (MAJOR, SOFT),
    "sad": (MINOR, SOFT),
    "dark": (MINOR, SOFT),
    "tense": (MINOR, LOUD),
    "epic": (MINOR, LOUD),
}
PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4), (0, 0, 3, 4), (0, 1, 4, 0))
BASSES = {"jazz": 32, "rock": 34, "techno": 38, "funk": 36, "blues": 33, "folk": 32}
KICK, SNARE, HAT, OPEN, RIDE, CLAP = 36, 38, 42, 46, 51, 39
BEATS = (0, 4, 8, 12)
# Sixteenths of a bar at which each drum sounds; the first drum sounds on every beat.
DRUMS: dict[str, dict[int, tuple[int, ...]]] = {
    "jazz": {KICK: BEATS, RIDE: (0, 4, 7, 8, 12, 15)},
    "rock": {KICK: BEATS, SNARE: (4, 12), HAT: (0, 2, 4, 6, 8, 10, 12, 14)},
    "techno": {KICK: BEATS, OPEN: (2, 6, 10, 14), CLAP: (4, 12)},
    "funk": {KICK: BEATS, SNARE: (4, 12), HAT: (0, 3, 6, 8, 11, 14)},
    "blues": {KICK: BEATS, SNARE: (4, 12), RIDE: (0, 3, 4, 7, 8, 11, 12, 15)},
    "folk": {KICK: BEATS, HAT: (2, 6, 10, 14)},
}
# Sixteenths of a bar at which the lead plays chords, and their length.
COMPING: dict[str, tuple[tuple[int, ...], int]] = {
    "ambient": ((), 0),
    "classical": ((), 0),
    "jazz": ((0, 7), 3),
    "rock": ((0, 2, 4, 6, 8, 10, 12, 14), 2),
    "techno": ((2, 6, 10, 14), 2),
    "folk": ((0, 4, 6, 8, 12, 14), 2),
    "funk": ((0, 3, 6, 11, 14), 1),
    "blues": ((0, 3, 4, 7, 8, 11, 12, 15), 2),
}


@dataclass(frozen=True)
class Piece:
    """The properties of a clip of music, in the words of the captions."""

    family: str
    tempo: str
    genre: str
    mood: str
    key: int
    """The key in semitones above C."""
    octave: int
    dense: bool
    drums: bool
    bass: bool
    seed: int


@dataclass(frozen=True)
class Note:
    """A note with times in seconds and MIDI values; channel 9 is the drums."""

    start: float
    end: float
    channel: int
    pitch: int
    velocity: int


LEAD, MELODY, BASS, DRUM = 0, 1, 2, 9
TRIAD = (0, 2, 4)


def draw_piece(number: int) -> Piece:
    """Draw the properties of the piece with this number."""
    draw = np.random.default_rng([7, number])
    family = str(draw.choice(list(FAMILIES)))
    genre = str(draw.choice(GENRES))
    tempo = str(draw.choice(list(TEMPI)))
    return Piece(
        family=family,
        tempo=tempo,
        genre=genre,
        mood=str(draw.choice(list(MOODS))),
        key=int(draw.choice(KEYS)),
        octave=int(draw.integers(4, 6)),
        dense=bool(draw.integers(2)),
        drums=genre in DRUMS and bool(draw.random() < 0.8),
        bass=genre in BASSES and bool(draw.random() < 0.6),
        seed=number,
    )


def is_held_out(piece: Piece) -> bool:
    """Return whether the combination of family, genre and tempo is held out; one in ten is."""
    where = list(FAMILIES).index(piece.family) * 3 + GENRES.index(piece.genre)
    return (where + 7 * list(TEMPI).index(piece.tempo)) % 10 == 0


def compose_notes(piece: Piece, seconds: float) -> list[Note]:
    """Compose the notes of a piece for at least so many seconds."""
    draw = np.random.default_rng([11, piece.seed])
    scale, velocity = MOODS[piece.mood]
    root = 12 * piece.octave + (piece.key - (3 if scale is MINOR else 0)) % 12
    sixteenth = FRAME_S * TEMPI[piece.tempo]
    progression = PROGRESSIONS[int(draw.integers(len(PROGRESSIONS)))]
    motif, rests = draw.integers(-2, 5, 16), draw.random(16) < 0.2
    notes: list[Note] = []

    def add_note(channel: int, at: float, length: float, pitch: int, loud: float = 1.0) -> None:
        pressed = min(round(velocity * loud), 127)
        start = at * sixteenth
        notes.append(Note(start, start + 0.95 * length * sixteenth, channel, pitch, pressed))

    def scale_pitch(step: int) -> int:
        return root + 12 * (step // 7) + scale[step % 7]

    def chord_root(at: int) -> int:
        return progression[at // CHORD[piece.tempo] % 4]

    pace = 2 if piece.dense else 4
    times, length = COMPING[piece.genre]
    for bar in range(0, 16 * int(np.ceil(seconds / (16 * sixteenth))), 16):
        for at in (bar + time for time in times):
            for step in TRIAD:
                add_note(LEAD, at, length, scale_pitch(chord_root(at) + step), 0.8)
        if piece.genre == "ambient":
            for at in range(bar, bar + 16, CHORD[piece.tempo]):
                for step in TRIAD:
                    add_note(LEAD, at, CHORD[piece.tempo], scale_pitch(chord_root(at) + step), 0.8)
        for count, time in enumerate(range(0, 16, pace)):
            at = bar + time
            if piece.genre in ("classical", "ambient"):
                step = TRIAD[(0, 2, 1, 2)[count % 4]]
                add_note(LEAD, at, pace, scale_pitch(chord_root(at) + step), 0.8)
            if not rests[time]:
                add_note(MELODY, at, pace, scale_pitch(chord_root(at) + 7 + int(motif[time])), 1.05)
        if piece.bass:
            walks = piece.genre in ("jazz", "blues")
            for count, time in enumerate(BEATS if walks else (0, 6, 8, 14)):
                step = chord_root(bar + time) + (TRIAD[count % 3] if walks else 0)
                add_note(BASS, bar + time, 3, scale_pitch(step) - 24 - 12 * (piece.octave - 4), 0.9)
        if piece.drums:
            for drum, hits in DRUMS[piece.genre].items():
                for time in hits:
                    add_note(DRUM, bar + time, 1, drum, 1.15)
    return notes
