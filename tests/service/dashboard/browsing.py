"""What tests in a browser are given."""

from collections.abc import Callable

from playwright.sync_api import Page

Open = Callable[..., Page]
"""Opens a path in a signed-in browser of its own; options are those of Playwright's `new_context`."""
