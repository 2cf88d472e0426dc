; Threads that walk tables together (see driver.ll) and wait for each other at events.
;
; An event is a block of 32 int64 whose value only grows; who waits for a value spins for a while and then sleeps:
;
;   event   0 value    1 job     8 threads that sleep here    9 threads arrived, where threads meet
;           10 nanoseconds of spinning    11 clock id    12 the event of finished jobs, for a worker's own
;           13 the time at which a job is expected    16 a mutex    24 a condition
;
; A job is eight int64: table, rows, thread, threads, control, args of the table, what they are before a step, and their
; bytes. A team is a row of events: 0 where the threads meet, 1 how many jobs workers have finished, 1 + thread the orders
; of that worker.

declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_timedwait(ptr, ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)

; Do steps: `jobs` has one for each of `threads` threads, the calling one first. No team is needed for one thread.
; The caller holds Python's global lock, which is free meanwhile. Returns when no thread uses jobs, tables or control any
; more; with Python's error set if a signal handler raised it, and -1, having done nothing, if a signal handler calls
; that runs inside of a step.
define i64 @graphc_run(ptr %jobs, i64 %threads, ptr %team) {
entry:
  %inside = load i64, ptr @handling
  %outside = icmp eq i64 %inside, 0
  br i1 %outside, label %ask, label %refused

refused:
  ret i64 -1

ask:
  %control.at = getelementptr i64, ptr %jobs, i64 4
  %control = load ptr, ptr %control.at
  %go = call i1 @begins(ptr %control)
  br i1 %go, label %begin, label %nothing

nothing:
  ret i64 0

begin:
  call void @look(ptr %control)
  %python = call ptr @PyEval_SaveThread()
  call void @step_begins(ptr %control, ptr %python)
  %done = call i64 @together(ptr %jobs, i64 %threads, ptr %team, ptr %control)
  store atomic ptr null, ptr @current monotonic, align 8
  call void @PyEval_RestoreThread(ptr %python)
  ret i64 %done
}

; Hand out the jobs, do the first one, and wait for the others.
define internal i64 @together(ptr %jobs, i64 %threads, ptr %team, ptr %control) {
entry:
  %workers = sub i64 %threads, 1
  %alone = icmp sle i64 %workers, 0
  br i1 %alone, label %on_one, label %on_many

on_one:
  %one.done = call i64 @steps(ptr %jobs)
  ret i64 %one.done

on_many:
  %finished = getelementptr i64, ptr %team, i64 32
  %before = load atomic i64, ptr %finished acquire, align 8
  br label %more_orders

more_orders:
  %thread = phi i64 [ 1, %on_many ], [ %thread.next, %order ]
  %more = icmp slt i64 %thread, %threads
  br i1 %more, label %order, label %share

order:
  %job.offset = mul i64 %thread, 8
  %job = getelementptr i64, ptr %jobs, i64 %job.offset
  %place = add i64 %thread, 1
  %event.offset = mul i64 %place, 32
  %event = getelementptr i64, ptr %team, i64 %event.offset
  %ordered = call i64 @graphc_order(ptr %event, ptr %job)
  %thread.next = add i64 %thread, 1
  br label %more_orders

share:
  %done = call i64 @steps(ptr %jobs)
  %state.at = getelementptr i64, ptr %control, i64 9
  %state = load atomic i64, ptr %state.at monotonic, align 8
  %stopped = icmp sge i64 %state, 3
  %meeting.at = getelementptr i64, ptr %control, i64 6
  %meeting = load ptr, ptr %meeting.at
  br i1 %stopped, label %release, label %finish

release:                                ; whoever waits for this thread at a barrier
  call void @raise(ptr %meeting)
  br label %finish

finish:
  %all = add i64 %before, %workers
  call void @wait(ptr %finished, i64 %all, ptr null)
  br i1 %stopped, label %empty, label %out

empty:                                  ; the barrier that some had reached
  %arrived.at = getelementptr i64, ptr %meeting, i64 9
  store atomic i64 0, ptr %arrived.at monotonic, align 8
  br label %out

out:
  ret i64 %done
}

; Announce a job to the workers of so many threads: they wake, and do not sleep before their spinning counted from a
; time `ahead` nanoseconds from now.
define i64 @graphc_rouse(ptr %team, i64 %threads, i64 %ahead) {
entry:
  %clock.at = getelementptr i64, ptr %team, i64 11
  %clock = load i64, ptr %clock.at
  %time = call i64 @now(i64 %clock)
  %announced = add i64 %time, %ahead
  br label %check

check:
  %thread = phi i64 [ 1, %entry ], [ %thread.next, %rouse ]
  %more = icmp slt i64 %thread, %threads
  br i1 %more, label %rouse, label %out

rouse:
  %place = add i64 %thread, 1
  %offset = mul i64 %place, 32
  %event = getelementptr i64, ptr %team, i64 %offset
  %announced.at = getelementptr i64, ptr %event, i64 13
  store atomic i64 %announced, ptr %announced.at monotonic, align 8
  call void @wake(ptr %event)
  %thread.next = add i64 %thread, 1
  br label %check

out:
  ret i64 0
}

; Give a job to the worker whose event this is; no job at all (null) ends it.
define i64 @graphc_order(ptr %event, ptr %job) {
entry:
  %job.at = getelementptr i64, ptr %event, i64 1
  store ptr %job, ptr %job.at
  call void @raise(ptr %event)
  ret i64 0
}

; What a worker thread does all its life. Its event's value is 0 when it starts.
define ptr @graphc_worker(ptr %event) {
entry:
  %finished.at = getelementptr i64, ptr %event, i64 12
  %finished = load ptr, ptr %finished.at
  %job.at = getelementptr i64, ptr %event, i64 1
  br label %next

next:
  %jobs = phi i64 [ 1, %entry ], [ %jobs.next, %do ]
  call void @wait(ptr %event, i64 %jobs, ptr null)
  %job = load ptr, ptr %job.at
  %end = icmp eq ptr %job, null
  br i1 %end, label %out, label %do

do:
  %done = call i64 @steps(ptr %job)
  call void @raise(ptr %finished)
  %jobs.next = add i64 %jobs, 1
  br label %next

out:
  ret ptr null
}

; All threads wait for the last one, which makes the value grow. Where a step is stopped they need not: whoever stops it
; sets the state first and then makes the value grow, so a thread that does not see the state here is woken by that.
define internal void @meet(i64 %threads, ptr %place, ptr %control, ptr %watch) {
entry:
  %alone = icmp sle i64 %threads, 1
  br i1 %alone, label %out, label %arrive

arrive:
  %generation = load atomic i64, ptr %place seq_cst, align 8
  %state.at = getelementptr i64, ptr %control, i64 9
  %state = load atomic i64, ptr %state.at seq_cst, align 8
  %stopped = icmp sge i64 %state, 3
  br i1 %stopped, label %out, label %join

join:
  %arrived.at = getelementptr i64, ptr %place, i64 9
  %before = atomicrmw add ptr %arrived.at, i64 1 acq_rel
  %arrived = add i64 %before, 1
  %last = icmp eq i64 %arrived, %threads
  br i1 %last, label %open, label %await

open:
  store atomic i64 0, ptr %arrived.at monotonic, align 8
  call void @raise(ptr %place)
  br label %out

await:
  %next = add i64 %generation, 1
  call void @wait(ptr %place, i64 %next, ptr %watch)
  br label %out

out:
  ret void
}

; Let an event's value grow by one, and wake who sleeps there. The order of the value and of the number of sleepers is
; the same for both sides, so that either this thread sees a sleeper, or the sleeper sees the value.
define internal void @raise(ptr %event) {
entry:
  %old = atomicrmw add ptr %event, i64 1 seq_cst
  call void @wake(ptr %event)
  ret void
}

define internal void @wake(ptr %event) {
entry:
  %sleepers.at = getelementptr i64, ptr %event, i64 8
  %sleepers = load atomic i64, ptr %sleepers.at seq_cst, align 8
  %none = icmp eq i64 %sleepers, 0
  br i1 %none, label %out, label %some

some:
  %mutex = getelementptr i64, ptr %event, i64 16
  %condition = getelementptr i64, ptr %event, i64 24
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %woken = call i32 @pthread_cond_broadcast(ptr %condition)
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %out

out:
  ret void
}

; Until the value has reached `target`: look for a while, then sleep. Who has a step to `watch` (its control block, or
; null) wakes now and then to look for signals, and waits no longer when the step is stopped.
define internal void @wait(ptr %event, i64 %target, ptr %watch) {
entry:
  %watches = icmp ne ptr %watch, null
  %deadline = alloca { i64, i64 }
  br label %look

look:
  %value = load atomic i64, ptr %event acquire, align 8
  %reached = icmp sge i64 %value, %target
  br i1 %reached, label %out, label %begin

begin:
  %spinning.at = getelementptr i64, ptr %event, i64 10
  %spinning = load i64, ptr %spinning.at
  %clock.at = getelementptr i64, ptr %event, i64 11
  %clock = load i64, ptr %clock.at
  %start = call i64 @now(i64 %clock)
  br label %spin

spin:
  %turn = phi i64 [ 0, %begin ], [ %turn.next, %again ], [ 0, %look_at_clock ]
  call void @relax()
  %seen = load atomic i64, ptr %event acquire, align 8
  %there = icmp sge i64 %seen, %target
  br i1 %there, label %out, label %again

again:
  %turn.next = add i64 %turn, 1
  %patient = icmp slt i64 %turn.next, 16
  br i1 %patient, label %spin, label %look_at_clock

look_at_clock:
  %time = call i64 @now(i64 %clock)
  %expected.at = getelementptr i64, ptr %event, i64 13
  %expected = load atomic i64, ptr %expected.at monotonic, align 8
  %later = icmp sgt i64 %expected, %start
  %from = select i1 %later, i64 %expected, i64 %start
  %waited = sub i64 %time, %from
  %still = icmp slt i64 %waited, %spinning
  br i1 %still, label %spin, label %sleep

sleep:
  %mutex = getelementptr i64, ptr %event, i64 16
  %condition = getelementptr i64, ptr %event, i64 24
  %sleepers.at = getelementptr i64, ptr %event, i64 8
  %locked = call i32 @pthread_mutex_lock(ptr %mutex)
  %more = atomicrmw add ptr %sleepers.at, i64 1 seq_cst
  %now = load atomic i64, ptr %event seq_cst, align 8
  %grown = icmp sge i64 %now, %target
  br i1 %grown, label %awake, label %lie_down

lie_down:
  br i1 %watches, label %nap, label %doze

doze:
  %dozed = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %awake

nap:
  call void @in_a_period(ptr %watch, ptr %deadline)
  %napped = call i32 @pthread_cond_timedwait(ptr %condition, ptr %mutex, ptr %deadline)
  br label %awake

awake:                                  ; perhaps only roused: then it looks for a while again
  %fewer = atomicrmw sub ptr %sleepers.at, i64 1 seq_cst
  %unlocked = call i32 @pthread_mutex_unlock(ptr %mutex)
  br i1 %watches, label %watch_out, label %look

watch_out:
  %ignored = call i64 @glance(ptr %watch)
  %state.at = getelementptr i64, ptr %watch, i64 9
  %state = load atomic i64, ptr %state.at seq_cst, align 8
  %stopped = icmp sge i64 %state, 3
  br i1 %stopped, label %out, label %look

out:
  ret void
}
