"""The demo: real text from pinned packages, driven over HTTP like any other user."""
