"""What a run says of itself: console, MLflow, report.html."""
