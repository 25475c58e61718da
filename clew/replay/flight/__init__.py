"""Single-flight: of many that want one key at once, one computes."""

from clew.replay.flight.flights import Flights as Flights
from clew.replay.flight.flights import is_inside as is_inside
