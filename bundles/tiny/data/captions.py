"""Writes captions of clips with varied synonyms, word order and attributes."""

import numpy as np

from bundles.tiny.data.effects import Effect
from bundles.tiny.data.music import Piece

Draw = np.random.Generator

INSTRUMENTS = {
    "piano": ("piano", "grand piano", "piano melody", "keys", "a pianist"),
    "guitar": ("guitar", "acoustic guitar", "guitar strumming", "a guitarist", "plucked guitar"),
    "strings": ("strings", "a string orchestra", "violins", "orchestral strings", "string section"),
    "flute": ("flute", "a flute solo", "wooden flute", "flute melody", "pipe"),
    "brass": ("brass", "trumpets", "brass section", "horns", "a fanfare of brass"),
    "organ": ("organ", "church organ", "an organist", "hammond organ", "pipe organ"),
    "bells": ("bells", "glockenspiel", "tubular bells", "chimes", "music box bells"),
    "synth": ("synth", "synthesizer", "electronic lead", "a synth lead", "analog synth"),
}
TEMPO_WORDS = {
    "slow": ("slow", "slowly", "at a slow tempo", "68 bpm", "unhurried", "relaxed tempo"),
    "medium": ("medium tempo", "mid-tempo", "at a moderate pace", "94 bpm", "walking pace"),
    "fast": ("fast", "quick", "upbeat tempo", "125 bpm", "lively", "at a fast tempo"),
    "very fast": ("very fast", "rapid", "racing", "150 bpm", "breakneck speed", "frantic tempo"),
}
GENRE_WORDS = {
    "ambient": ("ambient", "atmospheric", "ambient soundscape"),
    "jazz": ("jazz", "swinging jazz", "jazzy"),
    "rock": ("rock", "driving rock", "rock band"),
    "techno": ("techno", "electronic dance", "house", "club"),
    "classical": ("classical", "chamber music", "baroque"),
    "folk": ("folk", "country", "folk song"),
    "funk": ("funk", "funky groove", "funky"),
    "blues": ("blues", "shuffle blues", "bluesy"),
}
MOOD_WORDS = {
    "happy": ("happy", "cheerful", "joyful"),
    "bright": ("bright", "sunny", "sparkling"),
    "calm": ("calm", "peaceful", "gentle", "soft"),
    "dreamy": ("dreamy", "floating", "soothing"),
    "sad": ("sad", "melancholic", "sorrowful"),
    "dark": ("dark", "gloomy", "ominous"),
    "tense": ("tense", "nervous", "suspenseful"),
    "epic": ("epic", "heroic", "powerful", "cinematic"),
}
DRUM_WORDS = ("with drums", "with a beat", "with percussion", "and drums")
NO_DRUM_WORDS = ("without drums", "no drums")
SOLO_WORDS = ("solo", "unaccompanied", "without drums", "no drums")
BASS_WORDS = ("with bass", "over a bass line", "and bass")

SOUNDS = {
    "rain": ("rain", "rainfall", "raindrops", "a rain shower", "rain falling on a roof"),
    "wind": ("wind", "howling wind", "a breeze blowing", "gusts of wind", "a windstorm"),
    "waves": ("waves", "ocean waves", "the sea", "surf on a beach", "waves on the shore"),
    "thunder": ("thunder", "a thunderstorm", "rolling thunder", "thunder claps", "lightning"),
    "birds": ("birds", "birds singing", "birdsong", "chirping birds", "a bird in the forest"),
    "bell": ("bell", "a church bell", "a bell ringing", "bell tolling", "a large bell"),
    "siren": ("siren", "a police siren", "an ambulance siren", "an alarm", "emergency siren"),
    "engine": ("engine", "a motor running", "a car engine", "a truck idling", "a motorcycle"),
    "footsteps": ("footsteps", "someone walking", "steps on a floor", "a person's footsteps"),
    "laser": ("laser", "laser shots", "a ray gun", "a sci-fi blaster", "laser fire"),
    "door": ("door", "a door closing", "a creaking door", "a door slamming", "old door hinges"),
    "applause": ("applause", "clapping", "a crowd clapping", "an audience applauding"),
}
PACE_WORDS = {
    "light": ("light", "gentle", "slow", "soft"),
    "steady": ("steady", "regular", "moderate"),
    "heavy": ("heavy", "intense", "fast", "strong"),
}
FAR_WORDS = ("in the distance", "far away", "distant", "muffled, from afar")


def pick_words(draw: Draw, words: tuple[str, ...]) -> str:
    """Draw one of some synonyms; the first, plainest one is drawn more often."""
    return words[0] if draw.random() < 0.3 else str(draw.choice(words))


def describe_music(piece: Piece, draw: Draw) -> str:
    """Write a caption of a piece, nearly always with its instrument, and often with the rest."""
    parts = [pick_words(draw, INSTRUMENTS[piece.family])] if draw.random() < 0.95 else []
    for words, share in (
        (TEMPO_WORDS[piece.tempo], 0.9),
        (GENRE_WORDS[piece.genre], 0.6),
        (MOOD_WORDS[piece.mood], 0.5),
    ):
        if draw.random() < share:
            parts.append(pick_words(draw, words))
    if not parts:
        parts = [pick_words(draw, GENRE_WORDS[piece.genre]), "music"]
    order = draw.permutation(len(parts))
    joined = draw.choice([" ", ", "]).join(parts[index] for index in order)
    if draw.random() < 0.35:
        without = NO_DRUM_WORDS if piece.bass else SOLO_WORDS
        joined += " " + pick_words(draw, DRUM_WORDS if piece.drums else without)
    if piece.bass and draw.random() < 0.3:
        joined += " " + pick_words(draw, BASS_WORDS)
    return str(joined)


def describe_effect(effect: Effect, draw: Draw) -> str:
    """Write a caption of a sound effect, always with its kind."""
    caption = pick_words(draw, SOUNDS[effect.kind])
    if draw.random() < 0.6:
        pace = pick_words(draw, PACE_WORDS[effect.pace])
        caption = f"{pace} {caption}" if draw.random() < 0.7 else f"{caption}, {pace}"
    if effect.far and draw.random() < 0.7:
        caption += " " + pick_words(draw, FAR_WORDS)
    return caption
