"""The parameters of the ACE-Step API server, for the operations that answer to its clients."""
