"""Planning for hardware that is not there: published figures, compiler output and a stated roofline model."""
