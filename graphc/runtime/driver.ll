; The program driver: walks a program's table, a row of eight int64 for each entry.
;
;   column  0    1          2           3           4               5
;   row     0    kernel     args                                              call kernel(args, thread, threads)
;           1                                                                 barrier: all threads meet
;           2    cell       count       after                                 loop: cell = 0, on to the next row; count = 0: go to row `after`
;           3    cell       count       body        strides         number    next: add the strides and go to row `body`, or undo them and leave
;           4    target     source      bytes                                 copy (thread 0)
;           5    cell       amount                                            add amount to a cell (thread 0)
;           6    slot                   otherwise                               branch: if the byte at the address in `slot` is 0, go to row `otherwise`
;           7                           target                                  go to row `target`
;           8    kernel     args                                              call kernel(args, 0, 1) (thread 0)
;           9                                                                 from here on variables are written
;
; `strides` points at `number` pairs (address of an args slot, bytes to add to it each turn).
; A loop with a test is a `loop` row, the rows of the test, a `branch` out of it, the rows of the body, and `next`, whose
; count is the bound. All threads take the same way at a branch: the byte is written before a barrier, and written again
; only after another one.
; Each thread walks a table of its own, because loops write to cells and args; `control` is shared:
;
;   control 0 stop flag    1 steps wanted    4 times, or 0: for each thread and row two int64, calls and nanoseconds
;           2, 3 whether another step follows, as thread 0 decided in an even and in an odd one
;           5 clock id for clock_gettime     6 where the threads meet: an event, see team.ll
;           7 watches    8 how many    9 to 16: how a step is stopped in its middle, see signals.ll
;
; A watch is four int64: the address of a variable's two counts of changes, these counts when it was last looked at, and
; the address of a flag. Thread 0 looks once a call, before the others begin, and sets the flags of what has changed; a
; table branches on them to what must be prepared again, and clears them after it. So all threads go the same way, and
; what is not prepared to its end stays flagged, also if the variable is written meanwhile.
;
; One walk over the table is a step. The stop flag is obeyed between steps only; what stops a step in its middle is its
; state, which every thread looks at before each row: a thread that leaves puts its args back as they were before the
; step. The result is the number of steps done.
; The code is plain enough to be fast without optimisation, which would take longer than loading a whole program.

declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare i32 @clock_gettime(i32, ptr)

; True if there is a step to do at all: thread 0 asks before it calls the others.
define internal i1 @begins(ptr %control) {
entry:
  %stop = load volatile i64, ptr %control
  %wanted.at = getelementptr i64, ptr %control, i64 1
  %wanted = load i64, ptr %wanted.at
  %unstopped = icmp eq i64 %stop, 0
  %more = icmp sgt i64 %wanted, 0
  %go = and i1 %unstopped, %more
  ret i1 %go
}

; Set the flags of the variables that were written since the last look.
define internal void @look(ptr %control) {
entry:
  %watches.at = getelementptr i64, ptr %control, i64 7
  %number.at = getelementptr i64, ptr %control, i64 8
  %number = load i64, ptr %number.at
  br label %check

check:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %more = icmp slt i64 %i, %number
  br i1 %more, label %compare, label %out

compare:
  %watches = load ptr, ptr %watches.at
  %offset = mul i64 %i, 4
  %watch = getelementptr i64, ptr %watches, i64 %offset
  %counts = load ptr, ptr %watch
  %python.at = getelementptr i64, ptr %counts, i64 1
  %steps = load atomic i64, ptr %counts acquire, align 8
  %python = load atomic i64, ptr %python.at acquire, align 8
  %steps.seen.at = getelementptr i64, ptr %watch, i64 1
  %python.seen.at = getelementptr i64, ptr %watch, i64 2
  %steps.seen = load i64, ptr %steps.seen.at
  %python.seen = load i64, ptr %python.seen.at
  %steps.same = icmp eq i64 %steps, %steps.seen
  %python.same = icmp eq i64 %python, %python.seen
  %same = and i1 %steps.same, %python.same
  br i1 %same, label %next, label %flag

flag:
  store i64 %steps, ptr %steps.seen.at
  store i64 %python, ptr %python.seen.at
  %flag.at = getelementptr i64, ptr %watch, i64 3
  %raised = load ptr, ptr %flag.at
  store i64 1, ptr %raised
  br label %next

next:
  %i.next = add i64 %i, 1
  br label %check

out:
  ret void
}

; The steps of one thread, one at least.
define internal i64 @steps(ptr %job) {
entry:
  %rows.at = getelementptr i64, ptr %job, i64 1
  %thread.at = getelementptr i64, ptr %job, i64 2
  %threads.at = getelementptr i64, ptr %job, i64 3
  %control.at = getelementptr i64, ptr %job, i64 4
  %table = load ptr, ptr %job
  %rows = load i64, ptr %rows.at
  %thread = load i64, ptr %thread.at
  %threads = load i64, ptr %threads.at
  %control = load ptr, ptr %control.at
  %first = icmp eq i64 %thread, 0
  %watch = select i1 %first, ptr %control, ptr null    ; whoever looks for signals: thread 0
  %patience = select i1 %first, i64 4, i64 9223372036854775807
  %state.at = getelementptr i64, ptr %control, i64 9
  %wanted.at = getelementptr i64, ptr %control, i64 1
  %wanted = load i64, ptr %wanted.at
  %place.at = getelementptr i64, ptr %control, i64 6
  %place = load ptr, ptr %place.at
  %times.at = getelementptr i64, ptr %control, i64 4
  %times.all = load ptr, ptr %times.at
  %timed = icmp ne ptr %times.all, null
  %times.rows = mul i64 %thread, %rows
  %times.cells = mul i64 %times.rows, 2
  %times = getelementptr i64, ptr %times.all, i64 %times.cells
  %clock.at = getelementptr i64, ptr %control, i64 5
  %clock = load i64, ptr %clock.at
  br label %step

step:
  %done = phi i64 [ 0, %entry ], [ %done.next, %decided ]
  br label %walk

walk:
  %row = phi i64 [ 0, %step ], [ %row.next, %advance ], [ %row.target, %jump ]
  %left = phi i64 [ %patience, %step ], [ %left.now, %advance ], [ %left.now, %jump ]
  %state = load atomic i64, ptr %state.at monotonic, align 8
  %stopped = icmp sge i64 %state, 3
  br i1 %stopped, label %leave, label %more

more:
  %in_table = icmp ult i64 %row, %rows
  br i1 %in_table, label %count, label %step_done

count:
  %left.fewer = sub i64 %left, 1
  %glances = icmp eq i64 %left.fewer, 0
  br i1 %glances, label %look, label %dispatch

look:
  %left.new = call i64 @glance(ptr %control)
  %state.new = load atomic i64, ptr %state.at monotonic, align 8
  %stopped.now = icmp sge i64 %state.new, 3
  br i1 %stopped.now, label %leave, label %dispatch

dispatch:
  %left.now = phi i64 [ %left.fewer, %count ], [ %left.new, %look ]
  %offset = mul i64 %row, 8
  %at = getelementptr i64, ptr %table, i64 %offset
  %at1 = getelementptr i64, ptr %at, i64 1
  %at2 = getelementptr i64, ptr %at, i64 2
  %at3 = getelementptr i64, ptr %at, i64 3
  %code = load i64, ptr %at
  switch i64 %code, label %advance [ i64 0, label %call
                                     i64 1, label %barrier
                                     i64 2, label %loop
                                     i64 3, label %next
                                     i64 4, label %copy
                                     i64 5, label %add
                                     i64 6, label %branch
                                     i64 7, label %jump
                                     i64 8, label %call_alone
                                     i64 9, label %writes ]

call:
  br label %call_now

call_alone:
  br i1 %first, label %call_now, label %advance

call_now:
  %share = phi i64 [ %thread, %call ], [ 0, %call_alone ]
  %shares = phi i64 [ %threads, %call ], [ 1, %call_alone ]
  %kernel = load ptr, ptr %at1
  %args = load ptr, ptr %at2
  br i1 %timed, label %call_timed, label %call_plain

call_plain:
  call void %kernel(ptr %args, i64 %share, i64 %shares)
  br label %advance

call_timed:
  %begin = call i64 @now(i64 %clock)
  call void %kernel(ptr %args, i64 %share, i64 %shares)
  %end = call i64 @now(i64 %clock)
  %took = sub i64 %end, %begin
  %pair = mul i64 %row, 2
  %calls.at = getelementptr i64, ptr %times, i64 %pair
  %calls = load i64, ptr %calls.at
  %calls.new = add i64 %calls, 1
  store i64 %calls.new, ptr %calls.at
  %spent.at = getelementptr i64, ptr %calls.at, i64 1
  %spent = load i64, ptr %spent.at
  %spent.new = add i64 %spent, %took
  store i64 %spent.new, ptr %spent.at
  br label %advance

barrier:
  call void @meet(i64 %threads, ptr %place, ptr %control, ptr %watch)
  br label %advance

writes:
  %may_write = call i1 @writes(ptr %control)
  br i1 %may_write, label %advance, label %leave

loop:
  %loop.cell = load ptr, ptr %at1
  store i64 0, ptr %loop.cell
  %loop.count = load i64, ptr %at2
  %loop.empty = icmp sle i64 %loop.count, 0
  br i1 %loop.empty, label %jump, label %advance

next:
  %next.cell = load ptr, ptr %at1
  %next.count = load i64, ptr %at2
  %strides.at = getelementptr i64, ptr %at, i64 4
  %strides = load ptr, ptr %strides.at
  %number.at = getelementptr i64, ptr %at, i64 5
  %number = load i64, ptr %number.at
  %index = load i64, ptr %next.cell
  %turns = add i64 %index, 1
  store i64 %turns, ptr %next.cell
  %again = icmp slt i64 %turns, %next.count
  %back = sub i64 0, %index
  %factor = select i1 %again, i64 1, i64 %back
  call void @move(ptr %strides, i64 %number, i64 %factor)
  br i1 %again, label %jump, label %advance

copy:
  br i1 %first, label %copy_now, label %advance

copy_now:
  %target = load ptr, ptr %at1
  %source = load ptr, ptr %at2
  %bytes = load i64, ptr %at3
  call void @llvm.memmove.p0.p0.i64(ptr %target, ptr %source, i64 %bytes, i1 false)
  br label %advance

add:
  br i1 %first, label %add_now, label %advance

add_now:
  %sum.at = load ptr, ptr %at1
  %amount = load i64, ptr %at2
  %old = load i64, ptr %sum.at
  %sum = add i64 %old, %amount
  store i64 %sum, ptr %sum.at
  br label %advance

branch:
  %slot = load ptr, ptr %at1
  %predicate.at = load ptr, ptr %slot
  %predicate = load i8, ptr %predicate.at
  %no = icmp eq i8 %predicate, 0
  br i1 %no, label %jump, label %advance

advance:
  %row.next = add i64 %row, 1
  br label %walk

jump:
  %row.target = load i64, ptr %at3
  br label %walk

step_done:
  %done.next = add i64 %done, 1
  %enough = icmp sge i64 %done.next, %wanted
  br i1 %enough, label %finish, label %ask

ask:                                    ; thread 0 decides for all, so that all take the same way
  %parity = and i64 %done, 1
  %decision.place = add i64 %parity, 2
  %decision.at = getelementptr i64, ptr %control, i64 %decision.place
  br i1 %first, label %decide, label %decided

decide:
  %stop = load volatile i64, ptr %control
  %unstopped = icmp eq i64 %stop, 0
  %decision.new = zext i1 %unstopped to i64
  store i64 %decision.new, ptr %decision.at
  %unwritten = cmpxchg ptr %state.at, i64 1, i64 0 seq_cst seq_cst   ; a stopped step stays stopped
  br label %decided

decided:
  call void @meet(i64 %threads, ptr %place, ptr %control, ptr %watch)
  %decision = load i64, ptr %decision.at
  %goes = icmp ne i64 %decision, 0
  br i1 %goes, label %step, label %finish

finish:
  ret i64 %done.next

leave:
  %args.at = getelementptr i64, ptr %job, i64 5
  %args.all = load ptr, ptr %args.at
  %begun.at = getelementptr i64, ptr %job, i64 6
  %begun = load ptr, ptr %begun.at
  %args.bytes.at = getelementptr i64, ptr %job, i64 7
  %args.bytes = load i64, ptr %args.bytes.at
  call void @llvm.memmove.p0.p0.i64(ptr %args.all, ptr %begun, i64 %args.bytes, i1 false)
  ret i64 %done
}

; Add factor * bytes to each args slot of a loop.
define internal void @move(ptr %strides, i64 %number, i64 %factor) {
entry:
  br label %check

check:
  %i = phi i64 [ 0, %entry ], [ %i.next, %body ]
  %more = icmp slt i64 %i, %number
  br i1 %more, label %body, label %out

body:
  %offset = mul i64 %i, 2
  %pair = getelementptr i64, ptr %strides, i64 %offset
  %slot = load ptr, ptr %pair
  %bytes.at = getelementptr i64, ptr %pair, i64 1
  %bytes = load i64, ptr %bytes.at
  %delta = mul i64 %bytes, %factor
  %old = load i64, ptr %slot
  %new = add i64 %old, %delta
  store i64 %new, ptr %slot
  %i.next = add i64 %i, 1
  br label %check

out:
  ret void
}

define internal i64 @now(i64 %clock.wide) {
entry:
  %time = alloca { i64, i64 }
  %clock = trunc i64 %clock.wide to i32
  %ignored = call i32 @clock_gettime(i32 %clock, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %scaled = mul i64 %seconds, 1000000000
  %nanoseconds = add i64 %scaled, %rest
  ret i64 %nanoseconds
}
