"""`python -m pplebm` is the command `pplebm`."""

from pplebm.cli import main

if __name__ == "__main__":
    main(prog_name="pplebm")
