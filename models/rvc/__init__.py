"""RVC voice conversion: pitch, content features, retrieval and synthesis."""
