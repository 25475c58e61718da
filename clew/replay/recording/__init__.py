"""What a run asked of the world and was answered: written while it runs, read back to replay it."""

from clew.replay.recording.recorder import Recorder
from clew.replay.recording.recording import Recording, load

__all__ = ["Recorder", "Recording", "load"]
