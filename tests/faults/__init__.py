"""A harness of faults: what training loses when processes are killed, disks fill, files rot and Drive misbehaves.

shim        sees every system call of the library that writes, and kills, fails or lies at chosen ones
fake_drive  a Google Drive that fails, answers late, shortens files, goes back to old ones and disappears
child       a process that has imported all and forks one attempt at a run per job, with faults installed
trials      one run with its folders: start, damage, go on, compare with an undisturbed run
kills, damage, drive, others    the trials, by kind of fault
commands    export, predict, tidy, prepare and validate, killed at each of their writes
hostile     links and special files in every folder; small files that ask for much memory
probes      a finished workspace of all families, and the commands that read it, in a process bounded in memory and time
mutations   its files as a hostile hand changes them; mutants: what the probes answer then, and whether that is good
soak        the command: `python -m tests.faults.soak --help`
"""
