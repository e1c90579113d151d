"""Threads that wait for one another give their core away soon.

GNU's OpenMP, by which torch computes on a CPU, lets them spin before they sleep, on cores that other programs want: a
head took 39 s on two cores with two such programs, and 14 s since; alone 6 s, as before. More cores were not measured.
Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""

from __future__ import annotations

from collections.abc import MutableMapping

SPINS = "10000"
"""Instead of 300,000. With 1,000 to 50,000 the times were alike."""

OWN_CHOICE = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Say so in the environment, which is read when torch is loaded, unless the user has said how to wait."""
    if not any(name in environment for name in OWN_CHOICE):
        environment["GOMP_SPINCOUNT"] = SPINS
