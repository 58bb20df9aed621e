"""Sound and all that is done to it without a network. Knows nothing of requests, models or the platform."""

from audio.sound import Audio

__all__ = ["Audio"]
