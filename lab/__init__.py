"""Research: drawn photographs, data sets, evaluation, reports, ablation and audit.  Nothing imports it."""
