"""Attacks on time and processors."""

from __future__ import annotations

import os
import signal
import threading
import time

from trying import breaches, detach


def busy_loop(event):
    while True:
        pass


def sleeps_for_ever(event):
    time.sleep(1e9)


def busy_processes(event):
    for _ in range(8):
        if os.fork() == 0:
            busy_loop(event)
    busy_loop(event)


def busy_daemon_left_behind(event):
    detach(lambda: busy_loop(event))
    return []


def daemon_holds_the_pipes(event):
    """Everything the server had is still open in somebody when the server is gone."""
    detach(lambda: time.sleep(1e9))
    os._exit(3)


def daemon_holds_the_channel_alone(event):
    def life():
        os.closerange(0, 3)
        time.sleep(1e9)

    detach(life)
    os._exit(4)


def catches_what_ends_it(event):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        time.sleep(1)


def stops_itself(event):
    os.kill(os.getpid(), signal.SIGSTOP)


def stops_its_group(event):
    os.kill(0, signal.SIGSTOP)


def stops_everybody(event):
    if os.fork() == 0:
        busy_loop(event)
    os.kill(-1, signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def stops_its_server_from_a_child(event):
    """Stopped again as soon as it goes on."""
    parent = os.getpid()
    if os.fork() == 0:
        while True:
            os.kill(parent, signal.SIGSTOP)
    signal.pause()


def alarms_every_microsecond(event):
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
    while True:
        time.sleep(1)


def raises_its_priority(event):
    return breaches(
        {
            "fifo": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50)),
            "round robin": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
            "nice": lambda: os.setpriority(os.PRIO_PROCESS, 0, -10),
            "nice of the first": lambda: os.setpriority(os.PRIO_PROCESS, 1, -10),
            "clock": lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
        }
    )


def pins_itself_to_each_processor(event):
    for processor in os.sched_getaffinity(0):
        if os.fork() == 0:
            os.sched_setaffinity(0, {processor})
            busy_loop(event)
    busy_loop(event)


def lets_nobody_else_have_the_lock(event):
    """Python's own lock, held by a thread that never gives it up while the main thread is to answer."""
    import re

    threading.Thread(target=lambda: re.match(r"(a*)*b", "a" * 60), daemon=True).start()
    time.sleep(1e9)


def a_thread_outlives_the_answer(event):
    threading.Thread(target=busy_loop, args=(event,), daemon=False).start()
    return []


def idle_first_process(event):
    """Its first process, which tells of ends, gets time only when nobody else wants it."""
    # Without walls the user is that of every node on the machine, of other tests and of strangers too.
    for priority in ((os.PRIO_PROCESS, 1, 19), (os.PRIO_USER, 0, 19))[: 2 if event["walls"] else 1]:
        try:
            os.setpriority(*priority)
        except OSError:
            pass
    try:
        os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        pass
    for _ in range(8):
        if os.fork() == 0:
            busy_loop(event)
    os._exit(9)
