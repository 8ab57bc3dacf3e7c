"""What the tests of the providers share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("contract")  # a module of cases: its asserts shall speak as a test's do
