"""A SLURM of one's own: munge, MariaDB, slurmdbd, slurmctld and two slurmd, in one folder, on free ports.

Nothing of the machine's is used or changed, so it also runs beside a real SLURM. Partition `one` (the default) is a
node of two processors; `two` has another node beside it, which is the same machine.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from getpass import getuser
from pathlib import Path

PROGRAMS = {
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sacct"),
    "munge": ("munged",),
    "slurmdbd": ("slurmdbd",),
    "mariadb-server": ("mariadbd", "mariadb-install-db"),
}
REPOSITORY = Path(__file__).resolve().parents[2]
NODES = ("n1", "n2")
ELEMENTS = 6
"""Of an array, at most."""
PATIENCE = 90
"""Seconds that a daemon has to answer; they take one or two where the machine is not busy."""


def missing() -> list[str]:
    """The Debian packages whose programs are not there."""
    return [package for package, programs in PROGRAMS.items() if not all(map(_which, programs))]


class Cluster:
    """The daemons, from `with` to the end of its block.

    Args:
        folder: for everything they write; its path must be short, as sockets lie in it.
        memory: MB that each node has to give.
    """

    def __init__(self, folder: Path, memory: int) -> None:
        self.folder, self.memory = folder, memory
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self._stack = ExitStack()
        self._daemons: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Cluster":
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.run("scancel", f"--user={getuser()}")  # jobs outlive the daemons that started them
        limit = time.monotonic() + PATIENCE
        while self.run("squeue", "--noheader") and time.monotonic() < limit:
            time.sleep(0.3)
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        ports = dict(zip(("database", "accounts", "control", *NODES), _free_ports(5), strict=True))
        self._configure(ports)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        here = self.folder
        self._daemon(
            stack,
            "munged",
            "--foreground",
            f"--key-file={key}",
            f"--socket={here}/munge.socket",
            f"--pid-file={here}/munged.pid",
            f"--log-file={here}/munged.log",
            f"--seed-file={here}/munge.seed",
            "--num-threads=2",
        )
        self._database(stack, ports["database"])
        self._wait("munge", (here / "munge.socket").exists)
        self._daemon(stack, "slurmdbd", "-D")
        self._wait("slurmdbd", lambda: _answers(ports["accounts"]))
        self._daemon(stack, "slurmctld", "-D", "-c")
        for node in NODES:
            self._node(stack, node)
        self._wait("nodes", lambda: self.run("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * 3)
        self._wait("accounting", lambda: bool(self.run("sacctmgr", "-n", "list", "cluster").strip()))

    def run(self, *command: str, check: bool = False) -> str:
        """What a command says on this cluster, started in the repository; with `check` it must succeed."""
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            env=os.environ | self.environment,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def _database(self, stack: ExitStack, port: int) -> None:
        data, socket_ = self.folder / "database", self.folder / "database.socket"
        first = self.folder / "first.sql"
        # a nameless user of localhost, whom the installer makes, would be taken for slurm
        first.write_text(
            "DELETE FROM mysql.global_priv WHERE User='';\nFLUSH PRIVILEGES;\n"
            "CREATE USER slurm@'%' IDENTIFIED BY 'slurm';\nGRANT ALL ON *.* TO slurm@'%';\n"
        )
        self.run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            f"--user={getuser()}",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            check=True,
        )
        self._daemon(
            stack,
            "mariadbd",
            "--no-defaults",
            f"--datadir={data}",
            f"--socket={socket_}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--user={getuser()}",
            f"--pid-file={self.folder}/database.pid",
            f"--init-file={first}",
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-networking=0",
            "--innodb-buffer-pool-size=64M",
        )
        self._wait("MariaDB", lambda: _answers(port))

    def crash(self, node: str, job: str) -> None:
        """SIGKILL for a node's slurmd, its steps of a job and what they run; then slurmd is there again, as after a
        power cut."""
        self._nodes[node].kill()
        self._nodes[node].wait()
        for process in Path("/proc").glob("[0-9]*"):
            title, environment = read(process / "cmdline"), read(process / "environ")
            of_job = f"SLURM_JOB_ID={job}\0".encode() in environment and str(self.folder).encode() in environment
            if of_job or title.startswith(f"slurmstepd: [{job}.".encode()):
                with suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
        self._node(self._stack, node)

    def _node(self, stack: ExitStack, name: str) -> None:
        # -b: as after a boot, so that jobs from before it are lost
        self._nodes[name] = self._daemon(stack, "slurmd", "-D", "-N", name, "-b")

    def _daemon(self, stack: ExitStack, *command: str) -> "subprocess.Popen[bytes]":
        name = "-".join(part for part in command[:4] if not part.startswith("-"))
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self.environment
            )
        stack.callback(_stop, process)
        self._daemons.append((name, process))
        return process

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        limit = time.monotonic() + PATIENCE
        while not ready():
            ended = [name for name, process in self._daemons if process.poll() is not None]
            if ended or time.monotonic() > limit:
                name = ended[0] if ended else what
                logs = "\n".join((self.folder / f"{name}.log").read_text().splitlines()[-20:]) if ended else ""
                raise RuntimeError(f"{name} {'ended' if ended else f'did not answer within {PATIENCE} s'}\n{logs}")
            time.sleep(0.1)

    def _configure(self, ports: dict[str, int]) -> None:
        here, user = self.folder, getuser()
        auth = f"AuthType=auth/munge\nAuthInfo=socket={here}/munge.socket"
        (here / "slurmdbd.conf").write_text(f"""\
{auth}
DbdHost=localhost
DbdPort={ports["accounts"]}
SlurmUser={user}
PidFile={here}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports["database"]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
""")
        (here / "slurmdbd.conf").chmod(0o600)
        (here / "state").mkdir()
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost Port={ports[name]} CPUs=2 RealMemory={self.memory}"
            for name in NODES
        )
        # a requeued job waits until its old credential has expired: two minutes unless told otherwise;
        # a node that comes back may miss a job for ten seconds and BatchStartTimeout before it is lost
        (here / "slurm.conf").write_text(f"""\
ClusterName=own
SlurmctldHost=localhost
SlurmctldPort={ports["control"]}
SlurmUser={user}
SlurmdUser={user}
{auth},cred_expire=5
CredType=cred/munge
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={here}/state
SlurmdSpoolDir={here}/spool.%n
SlurmctldPidFile={here}/slurmctld.pid
SlurmdPidFile={here}/slurmd.%n.pid
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports["accounts"]}
AccountingStoragePass={here}/munge.socket
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
PriorityType=priority/basic
KillWait=5
OverTimeLimit=0
MinJobAge=300
MaxArraySize={ELEMENTS}
InactiveLimit=0
BatchStartTimeout=1
MessageTimeout=60
SlurmdTimeout=300
{nodes}
PartitionName=one Nodes={NODES[0]} Default=YES MaxTime=INFINITE State=UP
PartitionName=two Nodes={",".join(NODES)} MaxTime=INFINITE State=UP
""")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def read(path: Path) -> bytes:
    """A file of /proc; empty where its process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _which(program: str) -> str | None:
    return shutil.which(program, path=_path())


def _path() -> str:
    """Daemons are in sbin, which is not on every user's path."""
    return f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
