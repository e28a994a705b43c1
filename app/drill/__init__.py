"""The drill: faults injected into a throw-away deployment under load, and a certificate of what came of it.

faults.py says what is broken and how one knows that it came right, harness.py runs the fleet that it is done to,
certificate.py counts and compares, strategies.py is what misbehaves. Why it is built like this: docs/drill.md.
"""
