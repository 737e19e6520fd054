"""The link between frontend and backend: messages and framing, sans-IO."""
