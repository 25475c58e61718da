"""Single-flight: of many that want one key at once, one computes."""

from clew.replay.flight.flights import FIRST_PAUSE_SECONDS as FIRST_PAUSE_SECONDS
from clew.replay.flight.flights import LONGEST_PAUSE_SECONDS as LONGEST_PAUSE_SECONDS
from clew.replay.flight.flights import Flights as Flights
from clew.replay.flight.flights import is_inside as is_inside
from clew.replay.flight.keylock import KeyLocks as KeyLocks
