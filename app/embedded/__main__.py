"""`python -m app.embedded KIND DIRECTORY durable|fast`: a keeper. Started by usage.py, never by hand."""

import sys

from app.embedded.keeper import main

sys.exit(main(sys.argv[1:]))
