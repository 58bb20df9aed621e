"""Sound and all that is done to it without a network. Knows nothing of requests, models or the platform."""

from audio.types import Audio

__all__ = ["Audio"]
