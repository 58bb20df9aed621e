"""Everything between the platform and an operation: settings, job, input, delivery, and the adapter for the SDK."""
