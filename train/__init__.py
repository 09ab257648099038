"""The application: scripts run from a checkout, `probe.py` first."""
