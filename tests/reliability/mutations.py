"""Proof that each guarantee's tests can fail: the package with one line broken, and the tests that must notice.

    python -m tests.reliability.mutations          all of them
    python -m tests.reliability.mutations 02 06    those of two guarantees
    python -m tests.reliability.mutations --list

Each mutant is put into a copy of the package in a temporary folder, which the tests of its guarantee then import. They run
once on the copy as it is, first: what fails there proves nothing. A mutant that no test notices has SURVIVED.

A new mutant is a row of `MUTANTS`. `old` must stand in its file exactly once; choose one line that breaks one clause.
`tests` narrows the run to test names that hold one of these words (pytest's `-k`), where the whole file would take long.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "llm_jupyter"
TIMEOUT = 600
"""Seconds that the tests of one mutant may take; one that makes them hang is noticed, too."""


@dataclass(frozen=True)
class Mutant:
    """One line of the package, broken: the guarantee that it breaks, the file, the text, and what takes its place."""

    guarantee: int
    file: str
    old: str
    new: str
    tests: str = ""

    @property
    def name(self) -> str:
        lines = [line.strip() for line in self.new.strip().splitlines()] or ["(nothing)"]
        return f"{self.guarantee:02} {self.file}: {lines[0][:70]}"


STREAM, HTTP, WIRE = "providers/_stream.py", "providers/_http.py", "providers/_wire.py"
OPENAI, OLLAMA = "providers/openai_compatible.py", "providers/ollama.py"
NDJSON, ERRORS = "providers/_ollama_stream.py", "providers/_errors.py"
MARKDOWN = "magics/markdown.py"
HOST = "_supervisor/"
FAILOVER, CONNECTION, BREAKER = "failover.py", "connection.py", "breaker.py"
SQL, TURNS, FILE = "store/sql.py", "store/turns.py", "store/file.py"
DATABASE, REMAINS = "store/database.py", "store/remains.py"
ANSWERING, SESSION = "sessions/answering.py", "sessions/session.py"

MUTANTS = (
    # 1. Any slicing gives the same chunks.
    Mutant(1, WIRE, 'lines = block.split(b"\\n")', 'lines = block.splitlines() + [b""]'),
    Mutant(1, WIRE, "lines[0] = b\"\".join((*self._open, lines[0]))", "lines[0] = lines[0]"),
    Mutant(1, WIRE, 'lines = [line[:-1] if line.endswith(b"\\r") else line for line in lines]', "pass"),
    Mutant(1, WIRE, "lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)", "pass"),
    Mutant(1, WIRE, 'data.append(line[6:] if line.startswith(b"data: ") else line[5:])', "data.append(line[6:])"),
    Mutant(1, WIRE, 'event = data[0] if len(data) == 1 else b"\\n".join(data)', "event = data[0]"),
    Mutant(1, WIRE, 'return self._events([*self._lines.finish(), b""])', "return self._events(self._lines.finish())"),
    Mutant(1, WIRE, 'if line.startswith(b"data:"):', 'if b":" in line:'),
    Mutant(1, OPENAI, "chunks.append(chunk)", "chunks[:] = [chunk]"),
    # 2. What breaks off is never taken for whole.
    Mutant(2, OPENAI, "if reader.finish_reason is None:\n            raise", "if False:\n            raise"),
    Mutant(2, NDJSON, 'raise StreamTruncatedError("the answer broke off before', 'return  # ("the answer broke off before'),
    Mutant(2, STREAM, 'return message == b"[DONE]"', "return True"),
    Mutant(2, STREAM, "self._ended = True\n        rest = ", "self._ended = True\n        return [b'[DONE]']\n        rest = "),
    Mutant(2, "providers/base.py", "error.partial_text = builder.text", "pass"),
    # 3. What is no answer is one typed error.
    Mutant(3, HTTP, "if response.status != 200 or not _has_type(response, content_type):", "if response.status != 200:"),
    Mutant(3, HTTP, "if response.status != 200 or not _has_type(response, content_type):", "if not _has_type(response, content_type):"),
    Mutant(3, OPENAI, "if event.error is not None:", "if False:"),
    Mutant(3, NDJSON, "if line.error is not None:\n                    fields, text", "if False:\n                    fields, text"),
    Mutant(3, ERRORS, "UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)", "UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError)"),
    Mutant(3, ERRORS, "UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)", "UNDECODABLE = (msgspec.DecodeError, RecursionError)"),
    Mutant(3, ERRORS, '" ".join(text[:1000].split())[:200]', '" ".join(text[:1000].split())[:201]'),
    Mutant(3, ERRORS, '"".join(c if c.isprintable() else " " for c in', '"".join(c for c in'),
    # 4. Limits end what would last for ever.
    Mutant(4, WIRE, "LINE_LIMIT = 16 * 1024 * 1024", "LINE_LIMIT = 17 * 1024 * 1024"),
    Mutant(4, WIRE, "if self._open_size > self._limit or (lines and len(lines[0]) > self._limit):", "if self._open_size > self._limit:"),
    Mutant(4, WIRE, "if self._data_size > self._limit:", "if False:"),
    Mutant(4, WIRE, "self._open.append(last)", "self._open[:] = [b\"\".join((*self._open, last))]"),
    Mutant(4, HTTP, "HEADER_LIMIT = 64 * 1024", "HEADER_LIMIT = 128 * 1024"),
    Mutant(4, HTTP, 'if encoding != "identity":', "if False:"),
    Mutant(4, HTTP, '"Accept-Encoding": "identity"', '"Accept-Encoding": "gzip"'),
    Mutant(4, STREAM, 'if self._has_first_token and b"\\n" in block:', "if self._has_first_token:"),
    Mutant(4, STREAM, "return self._limits.idle if self._has_first_token else self._limits.first_token", "return self._limits.first_token"),
    Mutant(4, STREAM, "if left > 0 or not self._is_reading:", "if left > 0:"),
    Mutant(4, STREAM, "idle: float = 60.0", "idle: float = 600.0"),
    Mutant(4, OPENAI, "StreamLimits(options.timeout or self._limits.first_token, self._limits.idle)", "self._limits"),
    Mutant(4, NDJSON, "if reader.has_first_token:\n            stream.first_token_seen()", "if True:\n            stream.first_token_seen()"),
    # 5. A reader who leaves closes the socket.
    Mutant(5, STREAM, "self._watchdog.cancel()\n        self._response.close()", "self._watchdog.cancel()"),
    Mutant(5, OPENAI, "if stream is not None:\n                stream.close()", "if stream is not None:\n                pass"),
    Mutant(5, OLLAMA, "async for chunks in read_answer(stream, reader, self.where):\n                yield chunks\n        finally:\n            stream.close()",
           "async for chunks in read_answer(stream, reader, self.where):\n                yield chunks\n        finally:\n            pass"),
    Mutant(5, "providers/base.py", "await self.aclose()\n", "pass\n"),
    Mutant(5, HTTP, "if response is not None:\n                response.close()", "if response is not None:\n                pass"),
    Mutant(5, HTTP, "stream.close()  # closing", "pass  # closing"),
    # 6. No key reaches another origin.
    Mutant(6, HTTP, "self._open().post(self._url(path), data=_encoded(body), allow_redirects=False)",
           "self._open().post(self._url(path), data=_encoded(body))"),
    Mutant(6, HTTP, "self._open().request(method, self._url(path), data=_encoded(body), allow_redirects=False)",
           "self._open().request(method, self._url(path), data=_encoded(body))"),
    Mutant(6, HTTP, "without_secrets(target)[:100]", "target[:100]"),
    Mutant(6, HTTP, 'self.where = f"{name} at {without_secrets(self.base_url)}"', 'self.where = f"{name} at {self.base_url}"'),
    # 7. No retry after the first token.
    Mutant(7, FAILOVER, "            self._connection(self.choice).failed(error)\n            raise",
           "            return await self._again(self.choice, error, is_last=True) or []"),
    Mutant(7, FAILOVER, "RETRIED_STATUS = frozenset({502, 503, 504})", "RETRIED_STATUS = frozenset({500, 502, 503, 504})"),
    Mutant(7, FAILOVER, "RETRIED_STATUS = frozenset({502, 503, 504})", "RETRIED_STATUS = frozenset({502, 503})"),
    Mutant(7, FAILOVER, "if attempt > self._retries:", "if attempt > self._retries + 1:"),
    Mutant(7, FAILOVER, "await self._again(choice, self.tried.pop().error, is_last=True)", "(self._sent_again.clear(), await self._again(choice, self.tried.pop().error, is_last=True))[1]"),
    Mutant(7, FAILOVER, "while (is_last or _is_short(error)) and (delay", "while (delay"),
    Mutant(7, FAILOVER, "while (is_last or _is_short(error)) and (delay", "while is_last and (delay"),
    Mutant(7, FAILOVER, "LONGEST_RETRY_AFTER = 30.0", "LONGEST_RETRY_AFTER = 31.0"),
    Mutant(7, FAILOVER, "SHORT_RETRY_AFTER = 1.0", "SHORT_RETRY_AFTER = 1.5"),
    Mutant(7, FAILOVER, "isinstance(error, UnreachableError | HungUpError)", "isinstance(error, LLMConnectionError)"),
    Mutant(7, FAILOVER, "isinstance(error, UnreachableError | HungUpError)", "isinstance(error, UnreachableError)"),
    Mutant(7, FAILOVER, "if choice is self._chosen and not isinstance(error, GIVES_WAY):", "if False:"),
    Mutant(7, FAILOVER, "if any(chunk.text or", "if True or any(chunk.text or"),
    Mutant(7, FAILOVER, "FIRST_DELAY * 2 ** (attempt - 1), self._random)", "FIRST_DELAY, self._random)"),
    # 8. Failover, and the dead is left alone.
    Mutant(8, FAILOVER, "            self._connection(choice).breaker.trip()", "            pass"),
    Mutant(8, FAILOVER, "                self._connection(other).breaker.trip()", "                pass"),
    Mutant(8, FAILOVER, "async with asyncio.timeout(limit):", "async with asyncio.timeout(None):"),
    Mutant(8, FAILOVER, "        if self.tried:\n            self._announce(self.tried[-1], choice)", "        pass"),
    Mutant(8, FAILOVER, "LLMConnectionError, RateLimitedError, ServerError, ResponseError, ResourceError,", "LLMConnectionError, RateLimitedError, ServerError, ResourceError,"),
    Mutant(8, FAILOVER, "LLMConnectionError, RateLimitedError, ServerError, ResponseError, ResourceError,", "LLMConnectionError, ServerError, ResponseError, ResourceError,"),
    # 9. Breaker and health.
    Mutant(9, BREAKER, "        self._until, self._pause, self._trying, self.closed_by_a_look = None, 0.0, 0, False", "        self._trying = 0"),
    Mutant(9, BREAKER, "is_certain = is_certain or isinstance(error, UnreachableError)", "pass"),
    Mutant(9, BREAKER, "FAILURES, WINDOW = 3, 30.0", "FAILURES, WINDOW = 2, 30.0"),
    Mutant(9, BREAKER, "and now - self._failures[0] <= WINDOW", "and now - self._failures[0] < WINDOW"),
    Mutant(9, BREAKER, "self._pause * (2 if again else 1) or FIRST_PAUSE", "self._pause + (1 if again else 0) or FIRST_PAUSE"),
    Mutant(9, BREAKER, "FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0", "FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0"),
    Mutant(9, BREAKER, "JITTER = 0.2", "JITTER = 0.0"),
    Mutant(9, BREAKER, "decides = tries != 0 and tries == self._trying", "decides = tries != 0"),
    Mutant(9, BREAKER, "(self.wait == 0.0 and not self._trying)", "self.wait == 0.0"),
    Mutant(9, BREAKER, "        self._failures.clear()", "        pass"),
    Mutant(9, FAILOVER, "        for other in left_alone:  # never", "        for other in ():  # never"),
    Mutant(9, CONNECTION, "CHECK_SHARE = 0.8", "CHECK_SHARE = 8.0"),
    Mutant(9, CONNECTION, "spread(self._watching.health_interval * 0.9, self._random, 0.1)", "spread(self._watching.health_interval, self._random, 0.1)"),
    Mutant(9, CONNECTION, "due = began + spread(", "due = self._clock.monotonic() + spread("),
    Mutant(9, CONNECTION, "if self._checking is None or self._checking.done():", "if True:"),
    Mutant(9, CONNECTION, "idle and self._watching.health_interval and self.provider.is_local:", "idle and self._watching.health_interval:"),
    Mutant(9, CONNECTION, "        elif self.breaker.closed_by_a_look:", "        else:"),
    Mutant(9, CONNECTION, "            self.provider.observed(None)  # failures", "            self.breaker.succeed(); self.provider.observed(None)  # failures"),
    Mutant(9, CONNECTION, "            self.watch()  # so that", "            pass  # so that"),
    Mutant(9, OLLAMA, "    async def _look(self) -> None:\n        await self._list()", "    async def _look(self) -> None:\n        await self.load_model('m')"),
    # 10. Loading is a state.
    Mutant(10, FAILOVER, "            except ModelLoadingError:\n", "            except ZeroDivisionError:\n"),
    Mutant(10, FAILOVER, "if seen != mark:", "if False:"),
    Mutant(10, FAILOVER, "if now - moved > self._limit(connection):", "if now - started > self._limit(connection):"),
    Mutant(10, FAILOVER, "if now - moved > self._limit(connection):", "if now - moved > 10 * self._limit(connection):"),
    Mutant(10, FAILOVER, "elapsed=now - started)", "elapsed=LOADING_PAUSE)"),
    Mutant(10, "providers/_state.py", "((ModelLoadingError,), _S.LOADING),", "((ModelLoadingError,), _S.DEGRADED),"),
    Mutant(10, CONNECTION, "if isinstance(error, ModelLoadingError | AuthenticationError):", "if isinstance(error, AuthenticationError):"),
    Mutant(10, "effort.py", "(listener, *listener.children(recursive=True))", "(listener,)"),
    Mutant(10, "effort.py", "memory // MEMORY_STEP, reading // MEMORY_STEP", "0, 0"),
    # 11. A change of state is one event.
    Mutant(11, "providers/_state.py", "        if new is old:\n            self.reason = reason\n            return None\n", ""),
    Mutant(11, "providers/_state.py", "if new not in TRANSITIONS[old]:", "if False:"),
    Mutant(11, "providers/_state.py", "old in ANSWERING and not self._is_lost:", "old in ANSWERING:"),
    Mutant(11, "providers/_state.py", "self._was_connected = self._is_lost = False\n        elif", "self._is_lost = False\n        elif"),
    Mutant(11, "providers/_state.py", "return ProviderRecovered if was_lost else ProviderConnected", "return ProviderConnected"),
    Mutant(11, "providers/base.py", "            self.publish(event)", "            (self.publish(event), self.publish(event))"),
    Mutant(11, "providers/base.py", "            self.publish(event)", "            pass"),
    Mutant(11, "providers/base.py", "if ProviderState.CONNECTING in TRANSITIONS[self.state]:", "if True:"),
    # 12. No host outlives its holders.
    Mutant(12, HOST + "holders.py", "            self._known = self._folder.sweep_leases()", "            self._known = self._folder.holders()", "holders or patiently"),
    Mutant(12, HOST + "holders.py", "        if self.any_left():\n            return False\n        try:", "        return False\n        try:", "hears_no_term"),
    Mutant(12, HOST + "child.py", "ABANDONED_GRACE = 1.0", "ABANDONED_GRACE = 10.0", "hears_no_term or patiently"),
    Mutant(12, HOST + "child.py", "            if is_hopeless():", "            if False:", "patiently"),
    Mutant(12, HOST + "child.py", "        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)", "        pass", "supervisor"),
    Mutant(12, HOST + "child.py", "ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)", "pass", "hears_no_term"),
    Mutant(12, HOST + "identity.py", "        return _start_of(self.pid) == self.start", "        return _start_of(self.pid) is not None", "given_to_somebody_else"),
    Mutant(12, HOST + "identity.py", 'DEAD = ("Z", "X", "x")', 'DEAD = ("X", "x")', "killed"),
    Mutant(12, HOST + "folder.py", "len(parts) != 4 or parts[0] != machine() or", "len(parts) != 4 or", "other_machines"),
    Mutant(12, HOST + "folder.py", "                    (self.leases / name).unlink()\n        return living", "                    pass\n        return living", "long"),
    Mutant(12, HOST + "tree.py", "    return not ProcessIdentity(int(pid), int(start)).is_alive", "    return True", "left_alone"),
    Mutant(12, HOST + "tree.py", "    return not ProcessIdentity(int(pid), int(start)).is_alive", "    return False", "together"),
    Mutant(12, "hosts/seat.py", "            if state is not None and state.machine != machine():", "            if False:", "state_of_another"),
    Mutant(12, "hosts/seat.py", "            await self._mourn(state)", "            pass", "killed_supervisor"),
    Mutant(12, "hosts/manager.py", "            if look(spec.port, spec.ready or \"/\", spec.ready_field) == READY_NOW:", "            if False:", "person"),
    Mutant(12, "hosts/manager.py", "        if spec.port and is_taken(spec.port) and self._ours_at(spec.port) is None:\n            raise HostError(refused", "        if False:\n            raise HostError(refused", "never_saw"),
    # 13. Restarts are counted, stops are final.
    Mutant(13, HOST + "backoff.py", "MOST_RESTARTS = 5", "MOST_RESTARTS = 6", "minute or five"),
    Mutant(13, HOST + "backoff.py", "WINDOW = 60.0", "WINDOW = 30.0", "figures or minute"),
    Mutant(13, HOST + "backoff.py", "self._first * 2.0**self._in_a_row", "self._first", "delay"),
    Mutant(13, HOST + "backoff.py", "            self._in_a_row = 0\n        delay", "            pass\n        delay", "minute"),
    Mutant(13, HOST + "backoff.py", "min(LONGEST_DELAY, self._first", "min(99.0, self._first", "delay"),
    Mutant(13, HOST + "supervisor.py", "self._due = time.monotonic() + delay", "self._due = time.monotonic()", "delays_double"),
    Mutant(13, HOST + "supervisor.py", "        self._put_down(ABANDONED_GRACE if code is None else 0.0)", "        pass", "left"),
    Mutant(13, HOST + "child.py", "            os.killpg(process.pid, signal.SIGKILL if forced else signal.SIGTERM)", "            os.killpg(process.pid, signal.SIGKILL)", "obeys"),
    Mutant(13, HOST + "child.py", "            for process in self.tree():\n                _send(process, forced=True)", "            pass", "grace"),
    # 14. Kernels share one host.
    Mutant(14, "hosts/seat.py", "                if state.phase in JOINABLE:\n                    self._take_lease()", "                if False:\n                    self._take_lease()", "one_moment"),
    Mutant(14, "hosts/serving.py", "        elif self._hosts.is_up(spec):", "        elif False:", "only_asked"),
    Mutant(14, "providers/_llama_child.py", '    params.api_keys = [config["api_key"]]', "    pass", "another_user"),
    Mutant(14, "providers/_llama_child.py", '    params.hostnames = ["127.0.0.1"]', '    params.hostnames = ["0.0.0.0"]', "another_user"),
    Mutant(14, HOST + "folder.py", "            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)", "            file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)", "another_user"),
    Mutant(14, "hosts/_launch.py", "            start_new_session=True,\n", "", "group"),
    Mutant(14, HOST + "folder.py", "folder.mkdir(parents=True, exist_ok=True, mode=0o700)", "(folder.mkdir(parents=True, exist_ok=True), folder.chmod(0o755))", "another_user"),
    # 15. Watching is cheap, limits hold.
    Mutant(15, HOST + "alarm.py", "WATCHED = 1.0", "WATCHED = 0.02", "costs"),
    Mutant(15, "hosts/manager.py", "FOLLOW_INTERVAL = 0.2", "FOLLOW_INTERVAL = 0.01", "pays"),
    Mutant(15, "hosts/manager.py", "                self._measurer.cancel()\n                self._measurer = None", "                pass", "only_while"),
    Mutant(15, HOST + "watch.py", "return self._rss if self._is_over and not was_over else None", "return self._rss if self._is_over else None", "beyond"),
    Mutant(15, HOST + "watch.py", "            self._busy = now\n", "            pass\n", "not_idle"),
    Mutant(15, HOST + "watch.py", "and self._wall() - self._folder.last_use() >= limit", "", "not_idle"),
    Mutant(15, HOST + "supervisor.py", 'if action == "restart":', 'if action == "never":', "beyond"),
    Mutant(15, "hosts/_meter.py", "processes = [root, *descendants(root.pid)]", "processes = [root]", "has_started"),
    # 16. Nothing acknowledged is lost.
    Mutant(16, SQL, 'run(connection, "COMMIT")', "pass", "process_killed"),
    Mutant(16, TURNS, "_put_answer(connection, serial, AnswerRecord(number=number, response=response, created=now, is_whole=False))", "pass", "process_killed"),
    Mutant(16, TURNS, "TurnState.INTERRUPTED if has_answer else TurnState.FAILED", "TurnState.COMPLETE", "process_killed"),
    Mutant(16, SQL, '    run(connection, f"BEGIN {kind}")\n    try:\n        yield\n        run(connection, "COMMIT")\n', "    try:\n        yield\n", "process_killed"),
    Mutant(16, SESSION, "self.store.add(turn)", '__import__("threading").Timer(0.2, self.store.add, [turn]).start()', "arrives"),
    Mutant(16, "sessions/growth.py", "BEHIND = 0.15", "BEHIND = 3.0", "program_killed"),
    Mutant(16, "sessions/manager.py", "        if self.store.settle(record.id):\n            record = self.store.session(record.id) or record\n        self._forget", "        self._forget", "program_killed"),
    Mutant(16, "sessions/turns.py", "    if not answer.is_whole:", "    if False:", "program_killed"),
    Mutant(16, ANSWERING, "question = await to_its_end(session.question(self))", "question = await session.question(self)", "left"),
    Mutant(16, ANSWERING, "await to_its_end(self._end_early(error))", "await self._end_early(error)", "left"),
    # 17. Many kernels share one store.
    Mutant(17, SQL, 'kind: str = "IMMEDIATE"', 'kind: str = "DEFERRED"'),
    Mutant(17, FILE, "timeout=wait,", "timeout=0,"),
    Mutant(17, FILE, "if not is_busy(error) or time.monotonic() > end:", "if True:", "waited_for"),
    Mutant(17, FILE, 'journal = "DELETE" if is_remote(path) else "WAL"', 'journal = "WAL"', "network or write"),
    Mutant(17, "store/schema.py", "taken = version_of(connection)  #", "taken = 0  #", "first_time"),
    Mutant(17, "store/sessions.py", "holder IS ?", "(holder IS ? OR 1)", "claim"),
    # 18. Talk goes on without the disk.
    Mutant(18, DATABASE, "except sqlite3.Error as error:\n                    connection = self._give_up(error)", "except sqlite3.Error as error:\n                    raise"),
    Mutant(18, DATABASE, "except (OSError, sqlite3.Error, NewerFileError) as error:", "except (OSError, sqlite3.Error) as error:"),
    Mutant(18, DATABASE, "for record in list(self._known.values()):", "for record in ():"),
    Mutant(18, DATABASE, "found + self._remains.beyond(operation)", "found", "read"),
    Mutant(18, REMAINS, "self._carried.add(session)\n", "self._carried.add(session)\n        return\n"),
    Mutant(18, REMAINS, "for (turn,) in run(self._file,", "for (turn,) in () and run(self._file,"),
    Mutant(18, FILE, '"mode=ro&immutable=1"', '"mode=ro"'),
    Mutant(18, FILE, "if (version := version_of(connection)) > VERSION:", "if (version := version_of(connection)) > 99:", "later_version"),
    Mutant(18, SQL, "except (ValueError, TypeError, LookupError) as error:", "except ZeroDivisionError as error:"),
    Mutant(18, "store/store.py", "if self.path is not None and not self.is_kept:", "if False:", "purged"),
    Mutant(18, "magics/chat.py", "if trouble := kernel.factory.store.trouble:", 'if trouble := "":', "notebook"),
    Mutant(18, "magics/chat.py", "        if line not in kernel.said:", "        if True:", "notebook"),
    Mutant(18, "doctor/kept.py", "    if case.trouble:", "    if False:", "notebook"),
    # 19. Only whole answers are kept, and they replay as they came.
    Mutant(19, "cache/answers.py", "if self._finish not in WHOLE:", "if self._finish is None:"),
    Mutant(19, "cache/asking.py", "        if not batch and self._recorder is not None", "        if self._recorder is not None"),
    Mutant(19, "cache/answers.py", "if chunk.thinking or chunk.tool_calls:", "if chunk.thinking:"),
    Mutant(19, "cache/disk.py", "            self._rests_until, self.trouble = self._monotonic() + REST, reason\n            return otherwise", "            raise"),
    # 20. Whatever is typed or sent, the kernel goes on.
    Mutant(20, MARKDOWN, "return match[0] + ZERO_WIDTH", "return match[0]", "page"),
    Mutant(20, MARKDOWN, "if _is_live(text) or _is_costly(text):", "if _is_costly(text):", "live"),
    Mutant(20, "errors.py", "_written_lines(first)[:2]", "_written_lines(first)[:9]", "any_words"),
    Mutant(20, "errors.py", '"".join(c if c.isprintable() else " " for c in line).rstrip()', "line.rstrip()", "any_words"),
    Mutant(20, "errors.py", "line if len(line) <= width else", "line if True else", "any_words"),
    Mutant(20, "magics/args.py", "except ValueError as error:", "except KeyError as error:", "typed"),
    Mutant(20, OPENAI, "except UNDECODABLE as error:", "except KeyError as error:", "sends"),
    Mutant(20, NDJSON, "except UNDECODABLE as error:\n            failure", "except KeyError as error:\n            failure", "sends"),
    Mutant(20, SESSION, "if asked.sees else NothingEarlier()", "if False else NothingEarlier()", "fault"),
)  # fmt: skip


def tests_of(guarantee: int) -> Path:
    """The file of a guarantee's tests."""
    (found,) = (ROOT / "tests" / "reliability").glob(f"test_{guarantee:02}_*.py")
    return found


def copied(folder: Path) -> Path:
    """A copy of the package in a folder."""
    copy = folder / PACKAGE
    shutil.copytree(ROOT / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def run(guarantee: int, folder: Path, words: str = "") -> tuple[int, str]:
    """The exit code of a guarantee's tests on the package in a folder, and their last words."""
    known = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-q", "-x", "--no-header", "-p", "no:cacheprovider", *(["-k", words] if words else [])]
    command = [sys.executable, "-m", "pytest", *options, str(tests_of(guarantee))]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=known, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"no end within {TIMEOUT} s"
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["nothing was printed"]
    noticed = [line.partition("::")[2].split(" - ")[0] for line in lines if line.startswith("FAILED")]
    return done.returncode, "; ".join(noticed) or lines[-1]


def located(folder: Path) -> str:
    """Where a process with that folder on its path imports the package from."""
    known = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    script = f"import {PACKAGE}; print({PACKAGE}.__file__)"
    return subprocess.run([sys.executable, "-c", script], env=known, capture_output=True, text=True, check=True).stdout


def broken(mutant: Mutant, package: Path) -> str:
    """Apply a mutant; what the file was before. Raises `ValueError` where its text does not stand there exactly once."""
    file = package / mutant.file
    before = file.read_text("utf-8")
    if (count := before.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.file} has the text {count} times, and not once: {mutant.old!r}")
    file.write_text(before.replace(mutant.old, mutant.new), "utf-8")
    compile(file.read_text("utf-8"), str(file), "exec")  # a mutant that is no Python would be noticed by anything
    return before


def outcome(mutant: Mutant, package: Path) -> tuple[bool, str]:
    """Whether a mutant's guarantee is broken as it should be, and how one noticed."""
    try:
        before = broken(mutant, package)
    except (ValueError, SyntaxError, OSError) as error:
        return False, f"NO MUTANT: {error}"
    try:
        code, words = run(mutant.guarantee, package.parent, mutant.tests)
    finally:
        (package / mutant.file).write_text(before, "utf-8")
    if code == 1:
        return True, f"broken as it should be: {words}"
    return False, f"SURVIVED: {words}" if code == 0 else f"NO RUN (exit code {code}): {words}"


def check(mutants: Sequence[Mutant]) -> int:
    """Run mutants, guarantee by guarantee; how many of them prove nothing."""
    bad = 0
    for guarantee, group in groupby(sorted(mutants, key=lambda mutant: mutant.guarantee), lambda m: m.guarantee):
        with tempfile.TemporaryDirectory() as folder:
            package = copied(Path(folder))
            assert located(Path(folder)).startswith(folder), "the tests would not see the copy"
            code, words = run(guarantee, Path(folder))
            print(f"{guarantee:02} {tests_of(guarantee).stem}: {words}", flush=True)
            if code != 0:
                print(f"   NOT PASSING as it stands (exit code {code}): its mutants would prove nothing", flush=True)
                bad += 1
                continue
            for mutant in group:
                started = time.monotonic()
                good, words = outcome(mutant, package)
                bad += not good
                print(f"   {mutant.name}\n      {words} [{time.monotonic() - started:.0f} s]", flush=True)
    return bad


def main(arguments: Sequence[str]) -> int:
    if "--list" in arguments:
        print("\n".join(mutant.name for mutant in MUTANTS))
        return 0
    if wrong := [word for word in arguments if not re.fullmatch(r"\d{1,2}", word)]:
        print(f"{wrong[0]!r} is no guarantee: write its number, as in 02", file=sys.stderr)
        return 2
    wanted = {int(word) for word in arguments} or {mutant.guarantee for mutant in MUTANTS}
    chosen = [mutant for mutant in MUTANTS if mutant.guarantee in wanted]
    if without := wanted - {mutant.guarantee for mutant in chosen}:
        print(f"no mutant for {', '.join(f'{number:02}' for number in sorted(without))}", file=sys.stderr)
        return 2
    bad = check(chosen)
    print(f"{len(chosen)} mutants of {len(wanted)} guarantees, {bad} that prove nothing")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
