"""What a game's state sounds like."""

MOODS = (
    (0.8, "intense battle music"),
    (0.5, "suspense music"),
)
"""Above so much tension; the first that holds."""
CALM = "peaceful ambient music"


def prompt_of(tension: float, location: str | None) -> str:
    """Return the prompt of a state; `tension` is from 0 to 1."""
    mood = next((mood for above, mood in MOODS if tension > above), CALM)
    return f"{mood}, {location}" if location else mood
