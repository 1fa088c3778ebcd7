import platform

import pytest

from temper.code import Sandbox, SandboxError


@pytest.fixture(scope="session")
def sandbox():
    """One sandbox for the whole folder; its tests are skipped where there can be none."""
    try:
        made = Sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine ({platform.release()}): {error.faults[0].why or error}")
    yield made
    made.close()
