"""What a person does to datasets: info, validate, stats, merge, split."""
