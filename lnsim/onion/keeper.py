"""`lntor run`, as a process that says when it has begun: `python -m lnsim.onion.keeper CONFIG`."""

import sys

ARGV = (sys.executable, "-m", "lnsim.onion.keeper")
NAME = "lntor"

if __name__ == "__main__":
    from tor.cli import main

    sys.stdout.write('{"ready": "lntor"}\n')
    sys.stdout.flush()
    sys.argv = [NAME, "run", "--config", sys.argv[1]]
    main()
