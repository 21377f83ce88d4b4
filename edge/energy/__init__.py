"""Where joules come from on a board. What is not measured is None and a reason; nothing is modelled unless the user says so.

measure.py      what is said of a window: joules, class, source, rate, baseline, uncertainty
source.py       what a source is; a gauge of power, integrated by trapezoids
rapl.py         counters of CPU packages
ina.py          INA2xx and INA3221, through hwmon and NVIDIA's older driver
pmic.py         the power chip of a Raspberry Pi 5
battery.py      gauges of batteries
external.py     a meter that says `time watts` on a pipe, over TCP or a serial port (ports.py); README.md has its protocol
model.py        a fit against a meter (calibrate.py), from what the board does (activity.py)
find.py         which of them it is, by `[energy]` of the configuration (config.py) or by what can be read
integrator.py   the running sum, and windows as differences of it

All but pipes, TCP, serial ports and one program read files below a root, so tests lay out a tree of their own.
"""

from edge.energy.find import find
from edge.energy.integrator import Integrator, Mark
from edge.energy.measure import Energy, Kind
from edge.files import Files, UnreadableError

__all__ = ["Energy", "Files", "Integrator", "Kind", "Mark", "UnreadableError", "find"]
