"""What holds for every test."""

import signal

# A shell without job control starts background commands, and so a test run in the background, with SIGINT ignored;
# processes inherit that. The tests press Ctrl-C on processes that they start, as a terminal would.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
