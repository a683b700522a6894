"""What others see of us: dashboards and alerts, from their files up to a real Prometheus."""
