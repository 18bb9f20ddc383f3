//! One child process: started with a log file, ended by its pid, never outliving us.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Result, cleanup, wait};

/// How long a process that was told to stop may take before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A program with its arguments, and where it runs.
#[derive(Debug)]
pub struct Launch {
    words: Vec<std::ffi::OsString>,
    env: Vec<(String, String)>,
    netns: Option<String>,
    uid: Option<u32>,
}

impl Launch {
    /// A program without arguments yet.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().to_owned()],
            env: Vec::new(),
            netns: None,
            uid: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs it in a named network namespace.
    #[must_use]
    pub fn in_netns(mut self, name: Option<&str>) -> Self {
        self.netns = name.map(str::to_owned);
        self
    }

    /// Runs it as this user and group.
    #[must_use]
    pub const fn as_user(mut self, uid: Option<u32>) -> Self {
        self.uid = uid;
        self
    }

    /// `[ip netns exec NS] setpriv --pdeathsig KILL [--reuid ..] PROGRAM ..`: each of these replaces
    /// itself by the next, so the pid is the program's.
    fn command(&self) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(netns) = &self.netns {
            words.extend(["ip", "netns", "exec", netns].map(Into::into));
        }
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(Into::into));
        if let Some(uid) = self.uid {
            let id = uid.to_string();
            words.extend(["--reuid", &id, "--regid", &id, "--clear-groups"].map(Into::into));
        }
        words.push("--".into());
        words.extend(self.words.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env.iter().cloned());
        command
    }
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts it in a process group of its own (a Ctrl-C is ours to handle) with all it prints in
    /// `folder/NAME.log`.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(name: &str, launch: &Launch, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        let file = open().map_err(|error| format!("{}: {error}", log.display()))?;
        let again = file
            .try_clone()
            .map_err(|error| format!("{}: {error}", log.display()))?;
        let child = launch
            .command()
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(again)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{name} could not be started: {error}"))?;
        cleanup::started(child.id());
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            ended: None,
        })
    }

    /// Its name here.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.status().is_none()
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            cleanup::reaped(self.child.id());
            self.ended = Some(status);
        }
        self.ended
    }

    /// Sends a signal; nothing happens if it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if !self.runs() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Not waited for yet, so the pid is still this child.
            let _ = kill_process(pid, signal);
        }
    }

    /// TERM, and KILL if it does not end.
    ///
    /// # Errors
    /// It had to be killed.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM);
        let name = self.name.clone();
        wait::until(&format!("end of {name}"), STOP_PATIENCE, || {
            self.status().ok_or_else(|| "it runs".to_owned())
        })
        .inspect_err(|_| self.kill())
    }

    /// KILL, and waits for it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Ok(status) = self.child.wait() {
            cleanup::reaped(self.child.id());
            self.ended = Some(status);
        }
    }

    /// All it printed.
    #[must_use]
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        // A log that cannot be read is an empty one: this is for messages only.
        let _ = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines it printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Waits for `look`, and gives up at once if the process ends.
    ///
    /// # Errors
    /// The deadline passed or the process ended; with the end of its log.
    pub fn ready<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let name = self.name.clone();
        let mut ended = None;
        let seen = wait::until(&format!("{name}: {what}"), patience, || {
            ended = self.status();
            match ended {
                Some(_) => Ok(None),
                None => look().map(Some),
            }
        });
        match (seen, ended) {
            (Ok(Some(value)), _) => Ok(value),
            (_, Some(status)) => Err(format!("{name} ended ({status}):\n{}", self.log_tail())),
            (Ok(None), None) => Err(format!("{name} ended")),
            (Err(error), None) => Err(format!("{error}\n{}", self.log_tail())),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.runs() {
            self.kill();
        }
        if std::thread::panicking() {
            ringmesh_tuning::errln!("--- {} printed last:\n{}", self.name, self.log_tail());
        }
    }
}
