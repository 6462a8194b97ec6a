"""Whether a Python is one that a package's Requires-Python allows. Pure."""

from __future__ import annotations

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet


def allows(specifiers: str, version: str) -> bool:
    """Whether `version` fits all of `>=3.10,<4` or such (PEP 440); what is not understood is taken as fitting.

    Only the release of `version` counts: pip lets a package for >=3.13 into 3.13.0rc1, and a distribution's Python may
    call itself `3.11.9+`.
    """
    release = re.match(r"\d+(?:\.\d+)*", version)
    try:
        return release is None or SpecifierSet(specifiers).contains(release[0], prereleases=True)
    except InvalidSpecifier:
        return True
