//! One `perf record | perf script`, from its start to its last stack.
//!
//! In: processes, and where stacks go. Out: what perf said and how it ended. Never: a process left
//! behind: each has a group of its own that the keeper knows, and ends by INT, then TERM, then KILL.

use super::command::{self, Sampling};
use super::diagnose;
use super::script::{Account, StackReader, Taken, Targets};
use crate::engine::SharedRecorder;
use crate::process::{Child, Processes, Stage};
use model::Finding;
use nix::fcntl::{FcntlArg, fcntl};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// perf opens its events within this time. With many threads and CPUs that is thousands of them.
const ARM: Duration = Duration::from_secs(20);
/// After SIGINT perf record writes what is in the rings and ends; then perf script reads the rest of
/// the pipe and ends. Both together within this time: a lease's end leaves 5 s.
const END: Duration = Duration::from_secs(4);
/// Of it, what script has in any case.
const SCRIPT_END: Duration = Duration::from_secs(1);
/// The pipe between both, so that record need not wait for script at once: what every process may
/// ask for (fs.pipe-max-size, pipe(7)).
const PIPE_BYTES: i32 = 1 << 20;
/// Words of perf's that are kept.
const SAID_BYTES_MAX: usize = 32 << 10;
/// Bytes of text that are read in one step.
const STEP_BYTES: usize = 64 << 10;

/// Where stacks go, and how they are taken.
#[derive(Clone)]
pub(super) struct Into {
    pub recorder: SharedRecorder,
    pub taken: Taken,
}

/// Two processes and the task that reads them.
pub(super) struct Pipeline {
    record: Child,
    script: Child,
    control: Option<ChildStdin>,
    record_said: Said,
    script_said: Said,
    reader: Option<JoinHandle<Account>>,
    cpu_ns: (u64, u64),
}

/// How a pipeline ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// What came.
    pub account: Account,
    /// What perf said that matters.
    pub findings: Vec<Finding>,
}

impl Pipeline {
    /// Starts both and waits until perf record holds its events, disabled.
    ///
    /// # Errors
    /// Why it does not; both are gone then.
    pub(super) async fn open<T: Targets + Send + 'static>(
        processes: &Processes,
        perf: &Path,
        (sampling, pids): (Sampling, &[u32]),
        into: Into,
        targets: T,
    ) -> Result<Self, Vec<Finding>> {
        let failed = |what: &str, e: std::io::Error| {
            diagnose::failure(&format!("{} {what}: {e}", perf.display()), "")
        };
        let (from, to) = std::io::pipe().map_err(|e| failed("pipe", e))?;
        // As it is without, where the kernel does not give as much.
        let _ = fcntl(&to, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let argv = command::script(perf);
        let stage = Stage {
            argv: &argv,
            environment: &command::ENVIRONMENT,
            folder: Path::new("/"),
            stdin: Stdio::from(from),
            stdout: Stdio::piped(),
        };
        let mut script = processes
            .spawn_stage(stage)
            .await
            .map_err(|e| failed("script", e))?;
        let argv = command::record_pids(perf, sampling, pids);
        let stage = Stage {
            argv: &argv,
            environment: &command::ENVIRONMENT,
            folder: Path::new("/"),
            stdin: Stdio::piped(),
            stdout: Stdio::from(to),
        };
        let mut record = match processes.spawn_stage(stage).await {
            Ok(record) => record,
            Err(e) => {
                script.stop().await;
                return Err(failed("record", e));
            }
        };
        // It only copies from the rings; at the agent's own priority it would wait behind a busy
        // gateway until they ran over. Unwinding, the dear part, stays behind.
        native::give_usual_priority(record.pid());
        let (control, _, record_errors) = record.pipes();
        let (_, text, script_errors) = script.pipes();
        let mut pipeline = Self {
            record_said: Said::listen(record_errors),
            script_said: Said::listen(script_errors),
            reader: text.map(|text| tokio::spawn(read(text, into, targets))),
            control,
            record,
            script,
            cpu_ns: (0, 0),
        };
        match pipeline.armed().await {
            Ok(()) => Ok(pipeline),
            Err(findings) => {
                pipeline.stop().await;
                Err(findings)
            }
        }
    }

    /// perf answers once its events are open.
    async fn armed(&mut self) -> Result<(), Vec<Finding>> {
        self.say("disable").await;
        let mut acked = self.record_said.acked.subscribe();
        let answered = async {
            let _ = acked.wait_for(|acked| *acked).await;
        };
        tokio::select! {
            () = answered => Ok(()),
            status = self.record.ended_within(ARM) => {
                let what = match status {
                    Some(status) => format!("perf record ended with {status}"),
                    None => format!("perf record was not ready in {} s", ARM.as_secs()),
                };
                Err(diagnose::failure(&what, &self.record_said.text().await))
            }
        }
    }

    /// Tells perf record a word: `enable` starts the events, `ping` makes it pass on what is in the
    /// rings.
    pub(super) async fn say(&mut self, word: &str) {
        if let Some(control) = &mut self.control {
            let said = async {
                control.write_all(format!("{word}\n").as_bytes()).await?;
                control.flush().await
            };
            // A perf that does not listen has ended or hangs; `ended` and `finish` see to that.
            if !matches!(
                tokio::time::timeout(Duration::from_millis(200), said).await,
                Ok(Ok(()))
            ) {
                self.control = None;
            }
        }
    }

    /// Why it has ended by itself before its time. None while it runs, or when it ended because all
    /// its processes did.
    pub(super) async fn ended(&mut self) -> Option<Vec<Finding>> {
        let now = Duration::from_millis(1);
        if self.script.pid() != 0
            && let Some(status) = self.script.ended_within(now).await
            && !status.success()
        {
            let what = format!("perf script ended with {status}");
            return Some(diagnose::failure(&what, &self.script_said.text().await));
        }
        if self.record.pid() != 0
            && let Some(status) = self.record.ended_within(now).await
            && !status.success()
        {
            let what = format!("perf record ended with {status}");
            return Some(diagnose::failure(&what, &self.record_said.text().await));
        }
        None
    }

    /// Whether perf record still runs.
    pub(super) fn is_alive(&self) -> bool {
        self.record.pid() != 0
    }

    /// CPU time of both so far, in nanoseconds.
    pub(super) fn cpu_ns(&mut self) -> u64 {
        let read = |pid: u32, before: u64| {
            let now = if pid == 0 { 0 } else { native::cpu_ns(pid) };
            now.max(before)
        };
        self.cpu_ns = (
            read(self.record.pid(), self.cpu_ns.0),
            read(self.script.pid(), self.cpu_ns.1),
        );
        self.cpu_ns.0 + self.cpu_ns.1
    }

    /// Ends both in order: record first, so that what it has still reaches script, and script when
    /// it has read everything.
    pub(super) async fn finish(mut self) -> Ended {
        self.record.interrupt();
        // What is left is bounded by a pipe and the rings, and somebody waits for it.
        native::give_usual_priority(self.script.pid());
        let deadline = tokio::time::Instant::now() + END;
        let record = self.record.ended_within(END - SCRIPT_END).await;
        self.control = None;
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let script = self.script.ended_within(left).await;
        let mut ended = Ended::default();
        if record.is_none() || script.is_none() {
            let which = if record.is_none() { "record" } else { "script" };
            let what = format!("perf {which} did not end when it was asked to");
            ended.findings = diagnose::failure(&what, "");
        }
        let bad = |status: &Option<ExitStatus>| status.is_some_and(|s| !s.success());
        let script_said = self.script_said.text().await;
        if bad(&script) && record.is_some() {
            let what = "perf script ended in the middle";
            ended.findings.extend(diagnose::failure(what, &script_said));
        } else {
            ended.findings.extend(diagnose::diagnose(&script_said));
        }
        let record_said = self.record_said.text().await;
        ended.findings.extend(diagnose::diagnose(&record_said));
        let reader = self.reader.take();
        // Whoever had the time above and has not ended does not get more.
        tokio::join!(self.record.kill(), self.script.kill());
        if let Some(reader) = reader {
            // Both ends of the pipe are gone, so this ends.
            ended.account = reader.await.unwrap_or_default();
            let lost = diagnose::lost_samples(&script_said);
            ended.account.lost = ended.account.lost.max(lost);
        }
        ended
    }

    /// Ends both where nothing was captured.
    async fn stop(self) {
        tokio::join!(self.record.stop(), self.script.stop());
    }
}

/// Reads perf script until its end.
async fn read<T: Targets>(mut text: ChildStdout, into: Into, mut targets: T) -> Account {
    let mut reader = StackReader::new(into.taken);
    let mut bytes = vec![0; STEP_BYTES];
    while let Ok(length) = text.read(&mut bytes).await
        && length > 0
    {
        let mut recorder = into.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        reader.feed(&bytes[..length], &mut targets, &mut recorder);
    }
    let mut recorder = into.recorder.lock().unwrap_or_else(PoisonError::into_inner);
    reader.end(&mut targets, &mut recorder)
}

/// What a process says on stderr, read to its end so that it never waits for us.
struct Said {
    text: Arc<Mutex<Vec<u8>>>,
    acked: watch::Sender<bool>,
    listener: Option<JoinHandle<()>>,
}

impl Said {
    fn listen(errors: Option<impl AsyncRead + Send + Unpin + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let acked = watch::Sender::new(false);
        let (heard, tell) = (Arc::clone(&text), acked.clone());
        let listener = errors.map(|mut errors| {
            tokio::spawn(async move {
                let mut bytes = vec![0; 4 << 10];
                while let Ok(length) = errors.read(&mut bytes).await
                    && length > 0
                {
                    let mut kept = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = SAID_BYTES_MAX.saturating_sub(kept.len());
                    kept.extend_from_slice(&bytes[..length.min(room)]);
                    if !*tell.borrow() && has_line(&kept, b"ack") {
                        tell.send_replace(true);
                    }
                }
            })
        });
        Self {
            text,
            acked,
            listener,
        }
    }

    /// All that was said; once the process is gone, to its end.
    async fn text(&mut self) -> String {
        if let Some(listener) = &mut self.listener {
            let _ = tokio::time::timeout(Duration::from_millis(200), listener).await;
            self.listener = None;
        }
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// perf ends an answer with a line break and a zero byte.
fn has_line(text: &[u8], line: &[u8]) -> bool {
    text.split(|b| *b == b'\n' || *b == 0).any(|l| l == line)
}
