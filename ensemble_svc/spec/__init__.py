"""What is wanted: the job file as frozen values. No torch, no data, no effects."""
