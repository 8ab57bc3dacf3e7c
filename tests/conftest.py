"""What the whole suite shares. That this file stands here lets every test import `servers.*`."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["counts", "live", "labs"]

# Machines that run many things at once make single examples slow; a limit on the time of one would only be noise.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
