"""Metrics for Prometheus and health for probes, of workers in any program. Extra `metrics`.

```python
metrics = WorkerMetrics(worker)
server = metrics.serve(port=9000)          # /metrics, /live, /ready
```

Or without a server: the metrics are in the registry, by default prometheus-client's own. `zodworker
run --metrics-port 9000` does the same. docs/monitoring.md lists the metrics.
"""

try:
    import prometheus_client as _prometheus_client  # noqa: F401 - to say what is missing
except ModuleNotFoundError as _error:
    raise ImportError(
        "Metrics need prometheus-client: pip install 'zodworker-compat[metrics]'"
    ) from _error

from zodworker_compat.metrics.worker_metrics import WorkerMetrics

__all__ = ["WorkerMetrics"]
