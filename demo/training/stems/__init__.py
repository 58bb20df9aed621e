"""The separation models of the demo: what they hear, how they are trained, how well they separate."""
