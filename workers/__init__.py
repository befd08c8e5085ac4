"""Whatever takes longer than a request: claims on job rows, and the processes that do the work.

supervisor       one machine: slots, each a thread with one warm child; polls for jobs
celery_app       a team: a hint wakes a worker, which claims as the supervisor does
dispatcher       a team: takes back leases, advances optimizations, sends hints
pools            workers asked of a scheduler while jobs wait
pipeline         which jobs an optimization needs next, and whether it has ended
claims/          the row is the job
    claim        a lease on it: take, renew, finish, fail, give back, reap, try again
    failures     why a job did not succeed
    registry     the slots' own rows: seen, paused, draining
    slots        the slots of a machine, what its devices are, and how it hears that it stops
execution/       execute (the worker's side), child_handle and child (the process), waves (runs at once), launcher
                 (the process between a child and a program of the operator's)
jobs/            what each kind of job does: describe, execute, store
"""
