"""The table of attacks on a running node: what each is, how it ends, and where there is no wall against it.

An attack is a function of `functions/<language>/`. One that ends `ok` answers with what it got through
with, and that must be nothing. How it may end otherwise is the `type` of the reply's error; where the
kernel decides which of two walls is met first, either is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

SHORT, LONG = "1s", "10s"
OK, TIME, MEMORY, CRASH, EXIT, OUTPUT = "ok", "TimedOut", "OutOfMemory", "Crashed", "Exited", "OutputTooLarge"

# What a reply says of the limit, for endings that are always one's.
LIMITS: Mapping[str, str] = MappingProxyType(
    {TIME: "wall_time", MEMORY: "memory", OUTPUT: "output", "ResultTooLarge": "result"}
)
# Why the backend without walls is spared an attack: each is a line of SECURITY.md's table of walls.
SIGNALS = "whoever has no walls may signal whatever is of the same user, the node too"
PROCESSES = "processes are not counted without walls"
FILES = "without walls the files of the node's user are the function's own"
SHARED_MEMORY = "memory that is shared or the kernel's is not counted without walls"
NETWORK = "the network is the host's without walls"
KERNEL = "there is no filter and no /proc of its own without walls"


@dataclass(frozen=True)
class Case:
    """One attack."""

    language: str
    attack: str
    ends: str = OK
    """How it may end: words, any of which is right."""
    timeout: str = LONG
    cpu_time: str = ""
    limit: str = ""
    """Which limit the reply says was met, where there are walls; empty: what `LIMITS` says for the ending."""
    event: Mapping[str, Any] = field(default_factory=dict)
    says: str = ""
    """What the error's message holds."""
    elsewhere: str = ""
    """How it may end where there are no walls, if not in the same way."""
    clean_s: float = 2.0
    """How long it may take there until nothing is left: a disk is slower than memory that is dropped."""
    cannot: str = ""
    """Why it is not tried where there are no walls."""

    def __str__(self) -> str:
        values = "-".join(
            str(value)[:20] for value in (*self.event.values(), self.cpu_time and "cpu") if value
        )
        return "-".join(filter(None, (self.language, self.attack, values)))


def python(attack: str, ends: str = OK, **more: Any) -> Case:
    return Case("python", attack, ends, **more)


def nodejs(attack: str, ends: str = OK, **more: Any) -> Case:
    return Case("nodejs", attack, ends, **more)


def program(attack: str, ends: str = OK, **more: Any) -> Case:
    return Case("c", attack, ends, **more)


CPU_AND_TIME = (
    python("cpu.busy_loop", TIME, timeout=SHORT),
    nodejs("cpu.busy_loop", TIME, timeout=SHORT),
    program("busy_loop", TIME, timeout=SHORT),
    python("cpu.sleeps_for_ever", TIME, timeout=SHORT),
    nodejs("cpu.sleeps_for_ever", TIME, timeout=SHORT),
    program("busy_threads", TIME, timeout=SHORT),
    python("cpu.busy_processes", TIME, timeout=SHORT),
    python("cpu.busy_loop", TIME, cpu_time=SHORT, limit="cpu_time"),
    nodejs("cpu.busy_loop", TIME, cpu_time=SHORT, limit="cpu_time"),
    program("busy_threads", TIME, cpu_time=SHORT, limit="cpu_time"),
    python("cpu.busy_processes", TIME, cpu_time=SHORT, limit="cpu_time"),
    program("deaf", TIME, timeout=SHORT, cpu_time=SHORT),
    python("cpu.pins_itself_to_each_processor", TIME, timeout=SHORT),
    python("cpu.idle_first_process", EXIT, says="code 9"),
    python("cpu.busy_daemon_left_behind"),
    nodejs("cpu.busy_daemon_left_behind"),
    python("cpu.daemon_holds_the_pipes", EXIT, says="code 3"),
    python("cpu.daemon_holds_the_channel_alone", EXIT, says="code 4"),
    python("cpu.catches_what_ends_it", TIME, timeout=SHORT),
    program("deaf", TIME, timeout=SHORT),
    python("cpu.stops_itself", TIME, timeout=SHORT),
    python("cpu.stops_its_group", TIME, timeout=SHORT),
    python("cpu.stops_everybody", TIME, timeout=SHORT, cannot=SIGNALS),
    python("cpu.stops_its_server_from_a_child", TIME, timeout=SHORT),
    python("cpu.alarms_every_microsecond", TIME, timeout=SHORT),
    python("cpu.raises_its_priority"),
    python("cpu.lets_nobody_else_have_the_lock", TIME, timeout=SHORT),
    python("cpu.a_thread_outlives_the_answer"),
    nodejs("cpu.never_lets_the_loop_turn", TIME, timeout=SHORT),
    nodejs("cpu.timers_by_the_hundred_thousand"),
    nodejs("cpu.a_pattern_without_end", TIME, timeout=SHORT),
    program("timers"),
    program("queued_signals"),
)

MEMORY_CASES = (
    python("memory.takes_all", MEMORY, elsewhere=f"{MEMORY} MemoryError"),
    nodejs("memory.takes_all", MEMORY, elsewhere=f"{MEMORY} {CRASH} RangeError"),
    nodejs("memory.takes_all_of_the_heap", f"{MEMORY} {CRASH}"),
    python(
        "memory.takes_all_in_many_processes",
        f"{MEMORY} {TIME}",
        timeout="3s",
        elsewhere=f"{MEMORY} MemoryError {TIME}",
    ),
    python("memory.reserves_without_touching"),
    python("memory.fills_shared_memory", f"{OK} {MEMORY}", cannot=FILES),
    python("memory.fills_sealed_memory_files", MEMORY, cannot=SHARED_MEMORY),
    python("memory.fills_a_shared_mapping", MEMORY, elsewhere=f"{MEMORY} {CRASH} OSError"),
    python("memory.reads_many_files"),
    python("memory.locks_all_memory", cannot=SHARED_MEMORY),
    python("memory.takes_huge_pages", cannot=SHARED_MEMORY),
    python("memory.recurses_without_end", f"{MEMORY} {CRASH} RecursionError MemoryError"),
    python("memory.nests_without_end", f"{MEMORY} {CRASH} RecursionError MemoryError"),
    nodejs("memory.recurses_without_end", "RangeError"),
    nodejs("memory.result_that_is_deep", f"{OK} BadResult"),
    python("memory.fills_pipes", f"{OK} {MEMORY}", cannot=SHARED_MEMORY),
    python("memory.fills_sockets", f"{OK} {MEMORY}", cannot=SHARED_MEMORY),
    python("memory.a_child_takes_all", f"{OK} {MEMORY}"),
    python("memory.guards_itself_against_the_killer", cannot=KERNEL),
    python("memory.touches_page_tables_only", f"{OK} {MEMORY}", elsewhere=f"{OK} {MEMORY} OSError"),
    python("memory.system_v_segments", MEMORY, cannot=SHARED_MEMORY),
    python("memory.asks_for_names_that_are_not"),
    python("memory.many_threads_with_large_stacks"),
    python(
        "memory.a_value_that_never_ends",
        f"{MEMORY} {TIME}",
        timeout="3s",
        elsewhere=f"{MEMORY} {TIME} BadResult",
    ),
    program("many_mappings"),
    program("overflows_its_stack", CRASH, says="SIGSEGV"),
)

PROCESS_CASES = (
    python("processes.fork_bomb", TIME, timeout=SHORT, cannot=PROCESSES),
    python("processes.fork_bomb_of_the_shell", f"{OK} {TIME}", timeout=SHORT, cannot=PROCESSES),
    nodejs("processes.fork_bomb", f"{TIME} {MEMORY} {CRASH}", timeout=SHORT, cannot=PROCESSES),
    program("fork_bomb", TIME, timeout=SHORT, cannot=PROCESSES),
    program("vfork_bomb", TIME, timeout=SHORT, cannot=PROCESSES),
    program("sibling_bomb", TIME, timeout=SHORT, cannot=PROCESSES),
    program("thread_bomb", cannot=PROCESSES),
    python("processes.thread_bomb", cannot=PROCESSES),
    nodejs("processes.thread_bomb", f"{TIME} {MEMORY} {CRASH}", timeout="2s", cannot=PROCESSES),
    python("processes.zombie_factory", cannot=PROCESSES),
    python("processes.orphan_factory"),
    python("processes.executes_what_cannot_be"),
    python("processes.becomes_another_program", EXIT, says="code 0"),
    python("processes.becomes_another_program_that_stays", f"{TIME} {CRASH}", timeout=SHORT),
    python("processes.becomes_another_program_with_the_channel", CRASH),
    python("processes.dumps_core", CRASH, says="SIGABRT"),
    nodejs("processes.aborts", CRASH, says="SIGABRT"),
    *(
        python("processes.exits", EXIT, event={"code": code}, says=f"code {code}")
        for code in (0, 124, 137, 139, 255)
    ),
    *(nodejs("processes.exits", EXIT, event={"code": code}, says=f"code {code}") for code in (137, 139)),
    python("processes.leaves_politely", EXIT, event={"code": 5}, says="code 5"),
    *(
        python("processes.signals_itself", CRASH, event={"signal": number})
        for number in (1, 2, 9, 11, 13, 15, 25, 32, 33, 64)
    ),
    python("processes.signals_the_first"),
    python("processes.signals_its_parent", TIME, timeout=SHORT, cannot=SIGNALS),
    python("processes.kills_everybody", cannot=SIGNALS),
    python("processes.a_child_kills_it", CRASH, says="SIGKILL"),
    python("processes.looks_into_the_first"),
    python("processes.bounds_the_first", f"{EXIT} {CRASH}"),
    python("processes.hides_from_sight", TIME, timeout=SHORT),
    python("processes.locks_itself_in", TIME, timeout=SHORT, elsewhere=CRASH),
    python("processes.closes_everything_and_stays", f"{CRASH} {TIME}", timeout=SHORT),
    python("processes.closes_everything_and_leaves", EXIT, says="code 7"),
    python("processes.dies_in_the_midst_of_a_frame", EXIT, says="code 6"),
    python("processes.limits_itself_to_nothing", f"{OK} {CRASH} BadResult MemoryError"),
    python("processes.takes_a_terminal"),
    python("processes.argument_list_without_end", f"{OK} {MEMORY} MemoryError"),
    nodejs("processes.raises_outside", f"{EXIT} {CRASH} Error"),
    nodejs("processes.rejects_outside", f"{EXIT} {CRASH} Error"),
    nodejs("processes.takes_the_ways_out_away"),
    program("jumps_to_nowhere", CRASH, says="SIGSEGV"),
    program("inherits_a_dead_parent"),
    program("filters_of_its_own", f"{OK} {CRASH}"),
)

DISK = (
    python("disk.writes_until_it_is_full", f"{OK} {MEMORY}", cannot=FILES),
    python("disk.writes_one_file_without_end"),
    python("disk.sparse_file"),
    program("sparse_file", CRASH, says="SIGXFSZ", cannot=FILES),
    python("disk.a_million_files", f"{OK} {MEMORY}", cannot=FILES),
    python("disk.a_chain_of_folders", clean_s=30),
    python("disk.names_that_are_no_text"),
    python("disk.closes_its_folders"),
    python("disk.things_that_are_no_files"),
    python("disk.opens_a_pipe_that_nobody_writes", TIME, timeout=SHORT),
    python("disk.writes_outside", cannot=FILES),
    python("disk.changes_its_own_code", cannot=FILES),
    python("disk.copies_without_end", TIME, timeout=SHORT),
    python("disk.renames_and_links_without_end"),
    python("disk.attributes_and_lists", f"{OK} {MEMORY}", cannot=FILES),
    python("disk.watches_everything"),
    program("locks", f"{OK} {MEMORY} {TIME}", timeout="2s", cannot=FILES),
)

OUTPUT_CASES = (
    python("output.floods", OUTPUT),
    nodejs("output.floods", OUTPUT),
    python("output.floods", OUTPUT, event={"stream": 2}),
    python("output.floods_both", OUTPUT),
    python("output.floods_by_single_bytes", f"{OUTPUT} {TIME}", timeout=SHORT),
    python("output.floods_from_many_threads", OUTPUT),
    python("output.floods_pipes_it_has_changed", OUTPUT),
    python("output.signals_for_what_is_written"),
    python("output.smallest_pipes"),
    python("output.bytes_that_are_no_text"),
    python("output.speaks_like_the_server"),
    python("output.closes_its_streams", "OSError"),
    python("output.reads_its_input"),
    python("output.writes_after_the_answer"),
    python("output.result_too_large", "ResultTooLarge"),
    python("output.result_that_is_deep", "BadResult"),
    python("output.result_that_is_no_json", "BadResult"),
    python("output.result_that_lies", "BadResult SystemError KeyboardInterrupt"),
    python("output.error_with_a_long_name", f"A\r\nX-Injected: yes\r\n\r\n{'B' * 178}"),
    python("output.error_that_cannot_be_told", "Untold"),
    python("output.error_without_end", "ValueError"),
    python("output.error_that_ends_loops", "StopIteration", event={"kind": "stop"}),
    python("output.error_that_ends_loops", "GeneratorExit", event={"kind": "generator"}),
    python("output.error_that_ends_loops", "KeyboardInterrupt", event={"kind": "interrupt"}),
    python("output.error_from_the_deep", "RecursionError"),
    nodejs("output.result_that_lies", "BadResult"),
    nodejs("output.result_without_end", "BadResult"),
    nodejs("output.throws_nothing", "Error undefined"),
    nodejs("output.error_that_cannot_be_told", "Error"),
    nodejs("output.takes_the_words_away", f"{OK} {EXIT} {CRASH} {TIME} BadResult TypeError", timeout=SHORT),
)

RESULT, ERROR, LOG, DATA, EXITED, LOADED, HELLO = 0x83, 0x84, 0x85, 0x86, 0x87, 0x82, 0x81
FORGED: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "a result without its times": (RESULT, ""),
        "an error that is no JSON": (ERROR, "00" * 16 + "ff"),
        "an error of other fields": (ERROR, "00" * 16 + b"[1]".hex()),
        "an error with half a letter": (ERROR, "00" * 16 + rb'{"type": "\ud800", "message": ""}'.hex()),
        "a part of nothing": (DATA, "00"),
        "an ending of another shape": (EXITED, "00" * 3),
        "a second loading": (LOADED, "00" * 8),
        "a second greeting": (HELLO, b"{}".hex()),
        "a kind that is none": (0x00, ""),
        "a kind that is the node's": (0x02, "00" * 20),
        "the largest kind": (0xFF, "00"),
    }
)

DESCRIPTORS = (
    python("descriptors.opens_all_it_may"),
    python("descriptors.sends_descriptors_in_a_circle"),
    python("descriptors.has_only_its_own"),
    python("descriptors.opens_its_descriptors_anew", cannot=FILES),
    python("descriptors.gives_itself_permits", cannot=FILES),
    python("descriptors.gifts_pages_to_the_pipes"),
    python("descriptors.locks_the_channel"),
    python("descriptors.closes_the_channel", f"{CRASH} {TIME}", timeout="3s"),
    *(
        python("descriptors.shuts_the_channel", f"{CRASH} {TIME}", timeout="3s", event={"how": how})
        for how in (0, 1, 2)
    ),
    python("descriptors.shuts_the_channel_and_answers", f"{OK} {CRASH} {EXIT}"),
    python("descriptors.floods_the_channel", CRASH),
    python("descriptors.floods_the_channel", CRASH, event={"random": True}),
    nodejs("output.floods_the_channel", CRASH),
    python(
        "descriptors.floods_with_frames_for_nobody",
        CRASH,
        timeout="5s",
        event={"kind": LOG, "payload": "\1x"},
    ),
    python(
        "descriptors.floods_with_frames_for_nobody",
        CRASH,
        timeout="5s",
        event={"kind": RESULT, "payload": ""},
    ),
    python(
        "descriptors.floods_with_frames_for_nobody", CRASH, timeout="5s", event={"kind": DATA, "payload": "x"}
    ),
    python("descriptors.floods_with_empty_logs", CRASH, timeout="5s"),
    python("descriptors.floods_with_short_logs", f"{CRASH} {OUTPUT}", timeout="5s"),
    python("descriptors.begins_results_without_end", CRASH, timeout="5s"),
    python("descriptors.a_part_at_a_time", CRASH, timeout="5s"),
    python("descriptors.a_frame_never_finished", TIME, timeout=SHORT),
    python("descriptors.promises_too_much", CRASH, says="more than the"),
    python("descriptors.answers_for_others"),
    python("descriptors.answers_twice"),
    *(
        python("descriptors.answers_with", CRASH, event={"kind": kind, "payload": payload, "called": name})
        for name, (kind, payload) in FORGED.items()
    ),
    python(
        "descriptors.answers_with",
        EXIT,
        event={"kind": EXITED, "payload": "00000063ffffffff" + "00" * 8},
        says="code 99",
    ),
    python(
        "descriptors.answers_with", CRASH, event={"kind": EXITED, "payload": "ffffffff7fffffff" + "ff" * 8}
    ),
    python("descriptors.answers_with_deep_nesting", "ok not-json"),
    python("descriptors.fails_with_deep_nesting", CRASH),
    python("descriptors.claims_all_the_time_there_is"),
    python("descriptors.out_of_band", f"{TIME} {CRASH}", timeout="2s", event={"bytes": 1}),
    python("descriptors.out_of_band", f"{TIME} {CRASH}", timeout="2s", event={"bytes": 1000}),
    python("descriptors.sends_descriptors_to_the_node"),
    python("descriptors.sends_the_channel_through_the_channel", EXIT, says="code 8"),
    python("descriptors.options_of_the_channel", f"{OK} {CRASH} {EXIT}"),
    python("descriptors.greets_again", CRASH),
    python("descriptors.eats_what_comes_in"),
    python("descriptors.takes_the_servers_place"),
    python("descriptors.takes_the_words_away", f"BadResult {CRASH} {EXIT} {TIME}", timeout=SHORT),
)

NETWORK_CASES = (
    python("network.reaches_out", cannot=NETWORK),
    python("network.sends_what_nobody_asked_for", cannot=NETWORK),
    python("network.sees_others_sockets", cannot=NETWORK),
)

KERNEL_CASES = (
    python("kernel.reads_what_tells_of_the_host", cannot=KERNEL),
    python("kernel.turns_switches", cannot=KERNEL),
    python("kernel.dumps_its_environment"),
    python("kernel.looks_for_others", cannot=KERNEL),
    python("kernel.is_what_was_promised", cannot=KERNEL),
    program("narrow_kernel", cannot=KERNEL),
    program("wide_numbers", cannot=KERNEL),
    program("foreign_calls", CRASH, cannot=KERNEL),
    program("foreign_calls_of_x32", f"{OK} {CRASH}", cannot=KERNEL),
    program("burns_entropy_and_maps"),
)

SECTIONS: Mapping[str, tuple[Case, ...]] = MappingProxyType(
    {
        "cpu and time": CPU_AND_TIME,
        "memory": MEMORY_CASES,
        "processes and signals": PROCESS_CASES,
        "files and disk": DISK,
        "output and streams": OUTPUT_CASES,
        "descriptors and ipc": DESCRIPTORS,
        "network": NETWORK_CASES,
        "kernel surface": KERNEL_CASES,
    }
)
