"""How the examples of a profile are shared out among the fuzz tests."""

import re
from pathlib import Path


def test_shares_are_all_that_there_is():
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*_fuzz.py"))
    shares = [int(share) for share in re.findall(r"^@cases\((\d+)\)$", text, re.MULTILINE)]
    assert len(shares) == len(re.findall(r"^@given\(", text, re.MULTILINE)) > 15
    assert sum(shares) == 1000
