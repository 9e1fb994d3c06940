"""The machine: device, precision and provenance, Ray's start and stop, recorded GPU steps."""
