"""What stands between the platform and an operation: settings, job, intake, delivery, the SDK adapter."""
