"""Limits from what was seen: which values of a policy's knobs keep the false aborts below a rate."""

from streamguard.calibration.fitting import Fit, KnobFit, fit
from streamguard.calibration.measuring import Measured, measure
from streamguard.calibration.tolerance import most_blocks, needed, supported_rate

__all__ = ["Fit", "KnobFit", "Measured", "fit", "measure", "most_blocks", "needed", "supported_rate"]
