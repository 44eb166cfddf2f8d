"""Many runs at once: list and compare them, sweep over config fields, write report pages."""
