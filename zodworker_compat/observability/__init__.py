"""What others see of a worker: logs and traces."""
