"""From results to tables, claims and figures; reads result files only and never imports torch."""
