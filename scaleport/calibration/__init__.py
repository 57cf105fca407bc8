"""INT8 with a quality budget: calibration images, ranges, Q/DQ graphs, the search for a plan."""
