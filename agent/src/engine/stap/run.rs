//! One loaded module and the program that reads it, from its start to its last line.
//!
//! In: a module's file. Out: stacks to an ear, what was said, how it ended. Never: a module left behind: it is asked for
//! what it has, then SIGINT, so that it unloads itself; and what is still loaded then is unloaded by name.

use super::command;
use super::diagnose::{Diagnosis, Ending, ReportEnd, diagnose};
use super::last::{self, LastLine};
use super::module::Module;
use super::recover;
use super::report::{Account, Hears, Reader as Output};
use super::tool;
use crate::process::{Child, Processes, Stage};
use model::Finding;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

/// A module is loaded and says so within this time; on an emulated machine it takes 2 s.
pub(super) const LOAD: Duration = Duration::from_secs(30);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(50);
/// After SIGINT the module prints what it has and unloads: 0.7 to 1.5 s. A lease's end leaves 5 s.
pub(super) const END: Duration = Duration::from_millis(3_000);
/// Words that are kept: the first, which say why, and the last, which say how much was skipped.
const SAID_BYTES_MAX: usize = 32 << 10;
/// Bytes of text that are read in one step.
const STEP_BYTES: usize = 64 << 10;
/// And heard in one go.
const PIECE_BYTES: usize = 4 << 10;

/// The ear of a run, shared with whoever looks at it meanwhile.
pub(super) type Ear = Arc<Mutex<dyn Hears + Send>>;

/// Writes a word to one of a module's files.
///
/// # Errors
/// What the kernel says; the module may be gone.
pub(super) fn tell(file: &Path, word: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(file)?;
    file.write_all(word.as_bytes())
}

/// What a module is told when it is loaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The one process that it is for (`-x`).
    pub target: Option<u32>,
    /// Who may be a target: this process, and those whose parent it is (`-r`).
    pub near: Option<u32>,
    /// Values of its own parameters.
    pub parameters: Vec<String>,
}

/// A loaded module.
pub(super) struct Run {
    staprun: PathBuf,
    name: String,
    reader: Reader,
    ear: Ear,
    cpu_ns: u64,
}

/// A program that reads a module's output, and whoever reads its own.
pub(super) struct Reader {
    pub child: Child,
    pub said: Said,
    pub account: JoinHandle<Account>,
    /// Told when the report's last line has come.
    pub last: LastLine,
}

/// How a run ended.
pub(super) struct Ended {
    pub ending: Ending,
    pub diagnosis: Diagnosis,
    pub account: Account,
    /// What was done about a module that was still there.
    pub findings: Vec<Finding>,
}

/// The control file of a loaded module.
pub(super) fn control(name: &str) -> PathBuf {
    Path::new("/proc/systemtap").join(name).join("control")
}

impl Run {
    /// Loads the module with values of its own parameters. It captures nothing until it is told to.
    ///
    /// # Errors
    /// Why staprun could not be started.
    pub(super) async fn load(
        processes: &Processes,
        staprun: &Path,
        module: &Module,
        told: &Told,
        ear: Ear,
    ) -> io::Result<Self> {
        processes.guard_module(staprun, &module.name).await?;
        let buffer_mb = module.sizes.buffer_mb;
        let (target, parameters) = (told.target, &told.parameters);
        let mut argv = command::load_for(staprun, &module.file, buffer_mb, target, parameters);
        if let Some(near) = told.near {
            argv = command::with_number(argv, near);
        }
        let reader = start(processes, &argv, Arc::clone(&ear)).await?;
        Ok(Self {
            staprun: staprun.to_path_buf(),
            name: module.name.clone(),
            reader,
            ear,
            cpu_ns: 0,
        })
    }

    /// Waits until it obeys. False when staprun ended before, or took too long.
    ///
    /// The control file is there before the module's session runs, and takes no byte until then: a write gives 0. A word
    /// that means nothing asks for it.
    pub(super) async fn is_loaded(&mut self) -> bool {
        let control = control(&self.name);
        let tries = LOAD.as_millis() / LOOK.as_millis();
        for _ in 0..tries {
            if control.exists() && self.tell("?").is_ok() {
                return true;
            }
            if self.reader.child.ended_within(LOOK).await.is_some() {
                return false;
            }
        }
        false
    }

    /// Tells the module a word: `go`, `+PID`, `-PID`.
    ///
    /// # Errors
    /// What the kernel says; the module may be gone.
    pub(super) fn tell(&self, word: &str) -> io::Result<()> {
        tell(&control(&self.name), word)
    }

    /// Whether staprun has ended although it should not have.
    pub(super) async fn has_ended(&mut self) -> bool {
        self.reader.child.pid() == 0
            || self
                .reader
                .child
                .ended_within(Duration::from_millis(1))
                .await
                .is_some()
    }

    /// CPU time of the reader so far, in nanoseconds.
    pub(super) fn cpu_ns(&mut self) -> u64 {
        if self.reader.child.pid() != 0 {
            self.cpu_ns = self.cpu_ns.max(native::cpu_ns(self.reader.child.pid()));
        }
        self.cpu_ns
    }

    /// Ends it: the module prints what it has, is unloaded, and all output is read.
    pub(super) async fn finish(mut self, processes: &Processes) -> Ended {
        let has_ended = self.has_ended().await;
        if !has_ended {
            last::ask(&self.name, &self.reader.last, last::COMES).await;
        }
        self.reader.child.interrupt();
        let status = self.reader.child.ended_within(END).await;
        let code = status.and_then(|s| s.code());
        self.reader.child.kill().await;
        let mut findings = Vec::new();
        let mut account = self.reader.account.await.unwrap_or_default();
        let mut text = self.reader.said.text().await;
        if tool::is_loaded(&self.name) && has_ended {
            // Its reader was killed: the module goes on, and has what was not read yet.
            let left = recover::recover(processes, &self.staprun, &self.name, &self.ear).await;
            account.add(left.account);
            text.push('\n');
            text.push_str(&left.said);
            findings.push(left.finding);
        } else if tool::is_loaded(&self.name) {
            let why = recover::DID_NOT_END;
            findings.push(recover::unloaded(&self.staprun, &self.name, why).await);
        }
        let report = match account.end {
            Some((_, printed)) => ReportEnd::Came {
                printed,
                arrived: account.samples,
            },
            None => ReportEnd::Missing,
        };
        let ending = Ending {
            code,
            report,
            samples: account.samples.saturating_sub(account.again),
        };
        Ended {
            ending,
            diagnosis: diagnose(&text),
            account,
            findings,
        }
    }
}

/// Starts staprun with an ear for what it prints and one for what it says.
pub(super) async fn start(
    processes: &Processes,
    argv: &[OsString],
    ear: Ear,
) -> io::Result<Reader> {
    let stage = Stage {
        argv,
        environment: &command::ENVIRONMENT,
        folder: Path::new("/"),
        stdin: Stdio::null(),
        stdout: Stdio::piped(),
    };
    let mut child = processes.spawn_stage(stage).await?;
    // It only copies; behind a busy gateway the module's buffers would run over.
    native::give_usual_priority(child.pid());
    let (_, text, errors) = child.pipes();
    let last = LastLine::default();
    let account = match text {
        Some(text) => tokio::spawn(read(text, ear, last.clone())),
        None => tokio::spawn(async { Account::default() }),
    };
    Ok(Reader {
        child,
        said: Said::listen(errors),
        account,
        last,
    })
}

async fn read(mut text: impl AsyncRead + Unpin, ear: Ear, last: LastLine) -> Account {
    let mut reader = Output::default();
    let mut bytes = vec![0; STEP_BYTES];
    while let Ok(length) = text.read(&mut bytes).await
        && length > 0
    {
        // Unwinding a copied sample takes its time: the link to the coordinator, and whoever looks at the ear, get theirs.
        for piece in bytes[..length].chunks(PIECE_BYTES) {
            {
                let mut ear = ear.lock().unwrap_or_else(PoisonError::into_inner);
                reader.feed(piece, &mut *ear);
            }
            if reader.is_whole() {
                last.came();
            }
            tokio::task::yield_now().await;
        }
    }
    reader.end()
}

/// What a program says on stderr, read to its end so that it never waits for us.
pub(super) struct Said {
    text: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
    listener: Option<JoinHandle<()>>,
}

impl Said {
    pub(super) fn listen(errors: Option<impl AsyncRead + Send + Unpin + 'static>) -> Self {
        let text = Arc::<Mutex<(Vec<u8>, Vec<u8>)>>::default();
        let heard = Arc::clone(&text);
        let listener = errors.map(|mut errors| {
            tokio::spawn(async move {
                let mut bytes = vec![0; 4 << 10];
                while let Ok(length) = errors.read(&mut bytes).await
                    && length > 0
                {
                    let mut kept = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    let (first, last) = &mut *kept;
                    let room = SAID_BYTES_MAX.saturating_sub(first.len()).min(length);
                    first.extend_from_slice(&bytes[..room]);
                    last.extend_from_slice(&bytes[room..length]);
                    if last.len() > 2 * SAID_BYTES_MAX {
                        last.drain(..last.len() - SAID_BYTES_MAX);
                    }
                }
            })
        });
        Self { text, listener }
    }

    /// All that was said; once the process is gone, to its end.
    pub(super) async fn text(&mut self) -> String {
        if let Some(listener) = &mut self.listener {
            let _ = tokio::time::timeout(Duration::from_millis(300), listener).await;
            self.listener = None;
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = &*text;
        format!(
            "{}{}",
            String::from_utf8_lossy(first),
            String::from_utf8_lossy(last)
        )
    }
}
