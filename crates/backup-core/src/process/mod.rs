//! Programs of a store: each in a process group of its own, which does not outlive its guard.
//!
//! For plugins whose store has tools that nothing replaces, such as `pg_dump`.
//!
//! - **Success is known only at the end.** The exit status joins the end of the stream: look at
//!   [`Child::exit`] before a stream of the program is called complete.
//! - **Nothing stays behind.** Whatever of the group still lives is killed when its [`Child`] is
//!   dropped; a process that leaves the group (`setsid`) is on its own.
//! - **Secrets** belong into [`Env`], never into `argv`, where `ps` shows them. Where a program
//!   prints one of them on its standard error, errors show the variable's name instead.
//!
//! Needs a tokio runtime with I/O and time enabled. Unix only.

mod env;
mod feed;
mod output;
mod stderr;

use std::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid,
};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::stderr::Tail;
use crate::{Error, ErrorKind, Result};

pub use self::env::Env;

/// How long a program that has ended may keep a pipe open through what it started.
pub const GRACE: Duration = Duration::from_secs(5);

/// How much a program may write ahead: the most that Linux gives to everybody.
const PIPE: usize = 1 << 20;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// The program and its arguments; no shell reads them.
    pub argv: &'a [String],
    /// Variables that it gets besides those of this process.
    pub env: &'a Env,
    /// Whether it gets nothing of this process's environment.
    pub env_clear: bool,
    /// The folder that it runs in, if not that of this process.
    pub directory: Option<&'a Path>,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// Somebody else in this process collected it.
    Unknown,
}

/// A running program. Dropping it kills what is left of its process group.
pub struct Child {
    name: String,
    env: Env,
    exit: Option<Exit>,
    exited: oneshot::Receiver<Exit>,
    tail: Tail,
    stderr: JoinHandle<()>,
    _group: Group,
}

/// Kills the group, and only then lets the leader be collected: until that its number cannot
/// become another process's.
struct Group {
    leader: Pid,
    _uncollected: mpsc::Sender<()>,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody left to kill is as good.
        let _ = kill_process_group(self.leader, Signal::KILL);
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Child({}, {:?})", self.name, self.exit)
    }
}

impl Program<'_> {
    /// The program's name, for errors.
    pub fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// Starts it, with `stdin` and `stdout` as its own. Its standard error is read until it ends.
    pub fn start(&self, stdin: Stdio, stdout: Stdio) -> Result<(Child, Option<ChildStdout>)> {
        let name = self.name();
        let Some((program, arguments)) = self.argv.split_first().filter(|_| !name.is_empty())
        else {
            return Err(Error::new(ErrorKind::Invalid, "`argv` names no program"));
        };
        let mut command = process::Command::new(program);
        command
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped());
        if self.env_clear {
            command.env_clear();
        }
        for name in self.env.hidden() {
            command.env_remove(name);
        }
        command.envs(self.env.iter()).process_group(0);
        if let Some(folder) = self.directory {
            command.current_dir(folder);
        }
        let failed = |e| Error::io(format!("start `{name}`"), e);

        // The collector first: a child that nobody collects must not come to be.
        let (hand_over, child) = mpsc::channel();
        let (tell, exited) = oneshot::channel();
        let (uncollected, group_gone) = mpsc::channel();
        thread::Builder::new()
            .name("command".into())
            .spawn(move || {
                if let Ok(child) = child.recv() {
                    collect(child, tell, &group_gone);
                }
            })
            .map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        let group = Group {
            leader: Pid::from_child(&child),
            _uncollected: uncollected,
        };
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        if let Some(stdout) = &stdout {
            // Fewer switches between the two. Where it is refused, 64 KiB do as well.
            let _ = rustix::pipe::fcntl_setpipe_size(stdout, PIPE);
        }
        let _ = hand_over.send(child);

        let tail = Tail::default();
        let stderr = stderr
            .map(ChildStderr::from_std)
            .transpose()
            .map_err(failed)?;
        let drain = tail.clone();
        let stderr = tokio::spawn(async move {
            if let Some(stderr) = stderr {
                drain.drain(stderr).await;
            }
        });
        let stdout = stdout
            .map(ChildStdout::from_std)
            .transpose()
            .map_err(failed)?;
        let child = Child {
            name: name.to_owned(),
            env: self.env.clone(),
            exit: None,
            exited,
            tail,
            stderr,
            _group: group,
        };
        Ok((child, stdout))
    }
}

/// Waits for the end of `child`, tells it, and collects it once the group's guard is gone.
fn collect(
    mut child: process::Child,
    tell: oneshot::Sender<Exit>,
    group_gone: &mpsc::Receiver<()>,
) {
    let leader = WaitId::Pid(Pid::from_child(&child));
    let exit = loop {
        match waitid(
            leader.clone(),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        ) {
            Err(Errno::INTR) => {}
            Ok(Some(status)) => break Exit::from(status),
            Ok(None) | Err(_) => break Exit::Unknown,
        }
    };
    // Whoever waited may be gone, and its group with it.
    let _ = tell.send(exit);
    let _ = group_gone.recv();
    let _ = child.wait();
}

impl From<WaitIdStatus> for Exit {
    fn from(status: WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => Self::Status(status),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl Child {
    /// Waits until the program has ended. May be asked again, and dropped.
    pub async fn exit(&mut self) -> Exit {
        match self.exit {
            Some(exit) => exit,
            None => {
                let exit = (&mut self.exited).await.unwrap_or(Exit::Unknown);
                *self.exit.insert(exit)
            }
        }
    }

    /// Whether [`exit`](Self::exit) has told.
    pub fn has_exited(&self) -> bool {
        self.exit.is_some()
    }

    /// `` `pg_dump` exited with status 1: could not connect ``: what happened, and the program's
    /// own last words.
    pub async fn failure(&mut self, kind: ErrorKind, what: &str) -> Error {
        if self.exit.is_some() && !self.stderr.is_finished() {
            // What it wrote may still be in the pipe, or a grandchild may hold it.
            let _ = tokio::time::timeout(GRACE, &mut self.stderr).await;
        }
        let name = &self.name;
        let said = self.tail.text(&self.env);
        let message = match said.as_str() {
            "" => format!("`{name}` {what}, and said nothing on its standard error"),
            said => format!("`{name}` {what}: {said}"),
        };
        Error::new(kind, message)
    }

    /// `Ok` for status 0, else [`failure`](Self::failure).
    pub async fn check(&mut self, exit: Exit, kind: ErrorKind) -> Result<()> {
        let what = match exit {
            Exit::Status(0) => return Ok(()),
            Exit::Status(status) => format!("exited with status {status}"),
            Exit::Signal(signal) => format!("was killed by signal {signal}"),
            Exit::Unknown => "ended, and its exit status is lost".into(),
        };
        Err(self.failure(kind, &what).await)
    }

    /// An I/O error of a pipe to the program.
    pub fn broken(&self, error: io::Error) -> Error {
        Error::io(format!("pipe of `{}`", self.name), error)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stderr.abort();
    }
}
