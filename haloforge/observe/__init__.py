"""How a run can be watched: metrics, logs, its activity over time, trackers; see README.md."""
