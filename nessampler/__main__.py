"""`python -m nessampler` is `nessampler`."""

from nessampler.cli import main

main()
