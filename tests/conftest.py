"""What the whole suite shares. That this file stands here lets every test import `servers.*`."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["live", "labs"]  # the real model's weights; a real JupyterLab in a real browser

# Machines that run many things at once make single examples slow; a limit on the time of one would only be noise.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
