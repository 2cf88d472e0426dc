; How a step that takes long is stopped by Ctrl-C, or because the interpreter exits.
;
; Python's C handler only notes a signal; handlers written in Python run when the main thread executes Python, which it
; does not while it does a step. So thread 0 glances at a coarse clock before some of its rows, and in every period takes
; Python's global lock to ask whether SIGINT waits. Then it runs the handlers, and if one raises, the step is stopped:
; at once while no variable has been written, so that nothing has happened; else after a grace, because most steps are
; done by then. In Python's threads other than the main one no signal is ever found.
;
;   control  9 state   0 no variable is written yet   1 variables are written   2 a handler runs; nobody may begin to write
;                      3 stopped before anything was written   4 stopped later
;           10 coarse clock id     11 period and 12 grace, nanoseconds     13 when to ask next, 0 before the first glance
;           14 when SIGINT was found after variables had been written, or 0     15 the last glance    16 Python's thread

declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i32 @PyOS_InterruptOccurred()
declare void @PyErr_SetInterrupt()
declare i32 @PyErr_CheckSignals()
declare i32 @usleep(i32)

@current = internal global ptr null   ; control block of the step under way: there is one at a time
@handling = internal global i64 0     ; 1 while handlers run inside of a step

; A step begins.
define internal void @step_begins(ptr %control, ptr %python) {
entry:
  %state.at = getelementptr i64, ptr %control, i64 9
  store atomic i64 0, ptr %state.at monotonic, align 8
  %next.at = getelementptr i64, ptr %control, i64 13
  store i64 0, ptr %next.at
  %found.at = getelementptr i64, ptr %control, i64 14
  store i64 0, ptr %found.at
  %python.at = getelementptr i64, ptr %control, i64 16
  store ptr %python, ptr %python.at
  store atomic ptr %control, ptr @current release, align 8
  ret void
}

; Stop the step under way, whoever does it; Python's global lock is held, so that it cannot be gone meanwhile.
define i64 @graphc_stop() {
entry:
  %control = load atomic ptr, ptr @current acquire, align 8
  %none = icmp eq ptr %control, null
  br i1 %none, label %out, label %stop

stop:
  %state.at = getelementptr i64, ptr %control, i64 9
  store atomic i64 4, ptr %state.at seq_cst, align 8
  %place.at = getelementptr i64, ptr %control, i64 6
  %place = load ptr, ptr %place.at
  %alone = icmp eq ptr %place, null
  br i1 %alone, label %out, label %release

release:
  call void @raise(ptr %place)
  br label %out

out:
  ret i64 0
}

; A thread comes to where variables are first written; false if the step is stopped.
define internal i1 @writes(ptr %control) {
entry:
  %state.at = getelementptr i64, ptr %control, i64 9
  br label %try

try:
  %pair = cmpxchg ptr %state.at, i64 0, i64 1 seq_cst seq_cst
  %state = extractvalue { i64, i1 } %pair, 0
  %held = icmp eq i64 %state, 2
  br i1 %held, label %pause, label %out

pause:
  %paused = call i32 @usleep(i32 1000)
  br label %try

out:
  %may = icmp slt i64 %state, 2
  ret i1 %may
}

; Thread 0 looks at the clock, and asks for signals when it is time. Returns how many rows it may do before the next
; glance: some where they take less than a millisecond.
define internal i64 @glance(ptr %control) {
entry:
  %clock.at = getelementptr i64, ptr %control, i64 10
  %clock = load i64, ptr %clock.at
  %now = call i64 @now(i64 %clock)
  %last.at = getelementptr i64, ptr %control, i64 15
  %last = load i64, ptr %last.at
  store i64 %now, ptr %last.at
  %since = sub i64 %now, %last
  %quick = icmp ult i64 %since, 1000000
  %rows = select i1 %quick, i64 8, i64 1
  %next.at = getelementptr i64, ptr %control, i64 13
  %next = load i64, ptr %next.at
  %early = icmp slt i64 %now, %next
  br i1 %early, label %out, label %due

due:
  %period.at = getelementptr i64, ptr %control, i64 11
  %period = load i64, ptr %period.at
  %then = add i64 %now, %period
  store i64 %then, ptr %next.at
  %first = icmp eq i64 %next, 0
  br i1 %first, label %out, label %ask

ask:
  call void @ask(ptr %control, i64 %now)
  br label %out

out:
  ret i64 %rows
}

; Look for SIGINT, run Python's handlers if it is there, and stop the step if they raise.
define internal void @ask(ptr %control, i64 %now) {
entry:
  %python.at = getelementptr i64, ptr %control, i64 16
  %python = load ptr, ptr %python.at
  %state.at = getelementptr i64, ptr %control, i64 9
  %found.at = getelementptr i64, ptr %control, i64 14
  %found = load i64, ptr %found.at
  %new = icmp eq i64 %found, 0
  br i1 %new, label %look, label %wait

wait:                                   ; it was found after variables had been written
  %grace.at = getelementptr i64, ptr %control, i64 12
  %grace = load i64, ptr %grace.at
  %waited = sub i64 %now, %found
  %patient = icmp slt i64 %waited, %grace
  br i1 %patient, label %out, label %late

late:
  call void @PyEval_RestoreThread(ptr %python)
  br label %handle

look:
  call void @PyEval_RestoreThread(ptr %python)
  %interrupted = call i32 @PyOS_InterruptOccurred()
  %quiet = icmp eq i32 %interrupted, 0
  br i1 %quiet, label %back, label %hold

hold:                                   ; asking took the signal away: it is put back for Python to handle
  call void @PyErr_SetInterrupt()
  %pair = cmpxchg ptr %state.at, i64 0, i64 2 seq_cst seq_cst
  %held = extractvalue { i64, i1 } %pair, 1
  br i1 %held, label %handle, label %note

note:
  store i64 %now, ptr %found.at
  br label %back

handle:
  %before = phi i64 [ 1, %late ], [ 2, %hold ]
  %stopped = phi i64 [ 4, %late ], [ 3, %hold ]
  %unstopped = phi i64 [ 1, %late ], [ 0, %hold ]
  store i64 1, ptr @handling
  %code = call i32 @PyErr_CheckSignals()
  store i64 0, ptr @handling
  %raised = icmp slt i32 %code, 0
  %state = select i1 %raised, i64 %stopped, i64 %unstopped
  %changed = cmpxchg ptr %state.at, i64 %before, i64 %state seq_cst seq_cst   ; graphc_stop may have come first
  store i64 0, ptr %found.at
  br label %back

back:
  %again = call ptr @PyEval_SaveThread()
  br label %out

out:
  ret void
}

; The time one period from now, as pthread_cond_timedwait takes it: by the system's clock of the day.
define internal void @in_a_period(ptr %control, ptr %deadline) {
entry:
  %period.at = getelementptr i64, ptr %control, i64 11
  %period = load i64, ptr %period.at
  %now = call i64 @now(i64 0)
  %then = add i64 %now, %period
  %seconds = udiv i64 %then, 1000000000
  %rest = urem i64 %then, 1000000000
  store i64 %seconds, ptr %deadline
  %rest.at = getelementptr i64, ptr %deadline, i64 1
  store i64 %rest, ptr %rest.at
  ret void
}
