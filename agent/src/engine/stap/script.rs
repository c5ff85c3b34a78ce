//! A script of the user's, by SystemTap: expanded and built when it is armed, loaded at the start.
//!
//! In: an order with a script that the host's policy names by its hash. Out: what the script printed. Never: guru mode;
//! an option of the order's; a value that was not checked; a module that outlives the capture.
//!
//! A script begins when it is loaded, so that the hosts of a run begin as far apart as loading takes (0.5 to 2 s).

use super::build::{self, Builder};
use super::capture::failed;
use super::command::{self, BuildScript};
use super::diagnose::{Ending, ReportEnd, conclude, diagnose};
use super::module::{self, require_closed};
use super::run::{END, LOAD, Said};
use super::tool::{self, Turn};
use crate::clock::Clock;
use crate::engine::task::{CaptureTask, Told, lock};
use crate::engine::{BoxFuture, Engine, Poll, Stopped, native as native_engine};
use crate::host::program::{libraries_of_process, program_of};
use crate::process::{Child, Processes, Stage};
use crate::stapxx::{self, Bindings, Purpose, Runs, Source, check_path, check_value};
use model::coverage::CaptureStats;
use model::script::{PRINTED_BYTES_MAX, PrintedReader, Script};
use model::{CaptureOrder, Finding, FindingCode};
use native::TargetWatch;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::ChildStdout;
use tokio::sync::oneshot;

/// How often it is looked after.
const LOOK: Duration = Duration::from_millis(200);
const STEP_BYTES: usize = 64 << 10;
/// What is still in the pipe when the reader has ended comes at once.
const REST: Duration = Duration::from_secs(1);

/// See the module.
pub struct ScriptEngine {
    processes: Arc<Processes>,
    clock: Clock,
    runtime: Option<PathBuf>,
    task: CaptureTask,
}

/// What a script is for on this machine.
struct Found {
    pids: Vec<u32>,
    bindings: Bindings,
    findings: Vec<Finding>,
}

/// A module that is ready to be loaded.
struct Ready {
    processes: Arc<Processes>,
    clock: Clock,
    told: Arc<Mutex<Told>>,
    staprun: PathBuf,
    name: String,
    file: PathBuf,
    /// `-x`: the one process that `target()` is.
    target: Option<u32>,
    stats: CaptureStats,
    _turn: Turn,
}

impl ScriptEngine {
    /// An engine that has run nothing. `runtime` is what the policy names in place of SystemTap's own.
    #[must_use]
    pub fn new(processes: Arc<Processes>, clock: Clock, runtime: Option<PathBuf>) -> Self {
        Self {
            processes,
            clock,
            runtime,
            task: CaptureTask::default(),
        }
    }

    /// The machine's tools. Blocks for some milliseconds.
    fn builder(&self) -> Result<(PathBuf, Builder), Finding> {
        let staprun = tool::find("staprun")?;
        if let Some(finding) = tool::lockdown() {
            return Err(finding);
        }
        if let Some(runtime) = &self.runtime {
            require_closed(runtime).map_err(|e| {
                let said = format!("stap_runtime {}: {e}", runtime.display());
                Finding::new(FindingCode::PolicyUnsafe, said)
            })?;
        }
        let (kernel, _) = tool::kernel();
        let (stap, (major, minor)) = tool::translator()?;
        if !tool::has_headers(&kernel) {
            let said =
                format!("a script is built on the host, and there are no headers of {kernel}");
            return Err(Finding::new(FindingCode::StapKernelFiles, said));
        }
        let builder = Builder {
            stap,
            version: format!("{major}.{minor}"),
            kernel: kernel.into(),
            runtime: self.runtime.clone(),
            folder: PathBuf::from(module::FOLDER),
        };
        Ok((staprun, builder))
    }

    async fn ready(&self, order: &CaptureOrder) -> Result<(Ready, Vec<Finding>), Vec<Finding>> {
        let script = order.script.as_ref().ok_or_else(|| {
            vec![Finding::new(
                FindingCode::ProbeUnavailable,
                "an order without its script",
            )]
        })?;
        for (name, value) in &script.arguments {
            check_value(name, value.as_bytes()).map_err(|f| vec![f])?;
        }
        let (staprun, builder) = self.builder().map_err(|f| vec![f])?;
        let config = native_engine::config(order, false).map_err(|f| vec![f])?;
        let (loader, of_script) = (staprun.clone(), script.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let turn = tool::take_turn(&loader).map_err(|f| vec![f])?;
            let mut found = find(&of_script, TargetWatch::new(config))?;
            found.findings.splice(0..0, tool::unload_left(&loader));
            Ok::<_, Vec<Finding>>((turn, found))
        });
        let looked = looked.await.map_err(|e| failed(&e.to_string()))?;
        let (turn, found) = looked?;
        let processes = u32::try_from(found.pids.len()).unwrap_or(u32::MAX);
        let source = source(script);
        let (target, bindings, mut findings) = bind(&source, found)?;
        let done = stapxx::expand(&source, &bindings, Purpose::Run, &mut |_| None)
            .map_err(|e| vec![stapxx::invalid(&e)])?;
        let mistakes = done.notices.iter().filter(|notice| notice.is_mistake());
        let mistakes: Vec<String> = mistakes.map(ToString::to_string).collect();
        if !mistakes.is_empty() {
            let said = mistakes.join("; ");
            findings.push(Finding::new(FindingCode::ScriptSuspicious, said));
        }
        let images = bindings.exec_path.iter().chain(&bindings.libraries);
        let images: Vec<String> = images
            .filter(|path| command::unwindable(path).is_ok())
            .cloned()
            .collect();
        let name = module::name_of(&[&done.script.text, builder.version.as_bytes()]);
        let asked = BuildScript {
            stap: &builder.stap,
            name: &name,
            kernel: &builder.kernel,
            runtime: builder.runtime.as_deref(),
            images: &images,
        };
        let (file, more) =
            build::build_script(&self.processes, &builder.folder, &asked, &done).await?;
        findings.extend(more);
        let stats = CaptureStats {
            mode: format!("script {}", script.file),
            processes,
            ..CaptureStats::default()
        };
        let ready = Ready {
            processes: Arc::clone(&self.processes),
            clock: Arc::clone(&self.clock),
            told: Arc::clone(&self.task.told),
            staprun,
            name,
            file,
            target,
            stats,
            _turn: turn,
        };
        Ok((ready, findings))
    }
}

fn source(script: &Script) -> Source {
    Source {
        file: script.file.clone(),
        bytes: script.text.clone().into_bytes(),
    }
}

/// Which one process the script is for, or all of them at once; what its macros stand for then.
fn bind(
    script: &Source,
    found: Found,
) -> Result<(Option<u32>, Bindings, Vec<Finding>), Vec<Finding>> {
    let mut findings = found.findings;
    let filter = stapxx::filter_of(&script.bytes);
    let (runs, more) = stapxx::runs_for(&script.file, filter, found.pids.len());
    match (runs, &found.pids[..]) {
        (Runs::Each, [pid]) => Ok((Some(*pid), found.bindings.for_process(*pid), findings)),
        (Runs::Each, _) => {
            let remedy = "Name one process (--pick busiest:1, --target pid:N), or write $^pid_ok in the script.";
            let refused = |f: Finding| {
                Finding::new(FindingCode::ScriptTarget, f.evidence).with_remedy(remedy)
            };
            Err(more.into_iter().map(refused).collect())
        }
        (Runs::Together | Runs::Once, pids) => {
            findings.extend(more);
            Ok((None, found.bindings.for_processes(pids), findings))
        }
    }
}

/// Who is captured, and what the script's macros stand for. Blocks.
fn find(script: &Script, mut watch: TargetWatch) -> Result<Found, Vec<Finding>> {
    let (pids, _) = watch.scan();
    let Some(first) = pids.first().copied() else {
        let said = "no process matches the target, and a script's macros are of one";
        return Err(vec![Finding::new(FindingCode::TargetNotFound, said)]);
    };
    let of_target = |said: String| vec![Finding::new(FindingCode::ScriptTarget, said)];
    let program = program_of(first).map_err(of_target)?;
    if program.is_replaced {
        let said = format!(
            "{} was replaced on disk since process {first} started: \
             probes would go into the new file, and never be hit",
            program.path
        );
        return Err(of_target(said));
    }
    let mut findings = watch.take_findings();
    let path = program.visible_path(&program.path).map_err(of_target)?;
    check_path(&path).map_err(|f| vec![f])?;
    let mut bindings = Bindings {
        exec_path: Some(path),
        ..Bindings::default()
    };
    let mapped = libraries_of_process(first).map_err(of_target)?;
    for library in &mapped.libraries {
        let visible = program
            .visible_path(library)
            .map_err(|why| Finding::new(FindingCode::TargetFile, why))
            .and_then(|path| check_path(&path).map(|()| path));
        match visible {
            Ok(path) => _ = bindings.libraries.insert(path),
            // A library that the script does not use must not keep it from running.
            Err(finding) => findings.push(finding),
        }
    }
    for (name, value) in &script.arguments {
        bindings
            .arguments
            .insert(name.clone(), value.clone().into_bytes());
    }
    Ok(Found {
        pids,
        bindings,
        findings,
    })
}

impl Ready {
    async fn run(
        mut self,
        started: oneshot::Receiver<u64>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Stopped {
        let begins = tokio::select! {
            Ok(start_ns) = started => {
                let wait = start_ns.saturating_sub(self.clock.now_ns());
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_nanos(wait)) => true,
                    _ = &mut stopped => false,
                }
            }
            _ = &mut stopped => false,
        };
        let mut findings = Vec::new();
        if begins {
            match self.load().await {
                Ok(running) => findings = self.watch_over(running, &mut stopped).await,
                Err(e) => {
                    let said = format!("staprun could not be started: {e}");
                    lock(&self.told).ended = failed(&said).pop();
                    let _ = stopped.await;
                }
            }
        }
        let _ = std::fs::remove_file(&self.file);
        Stopped {
            stats: self.stats,
            findings,
        }
    }

    async fn load(&self) -> std::io::Result<Child> {
        self.processes
            .guard_module(&self.staprun, &self.name)
            .await?;
        let argv = command::load_for(&self.staprun, &self.file, 1, self.target);
        let stage = Stage {
            argv: &argv,
            environment: &command::ENVIRONMENT,
            folder: Path::new("/"),
            stdin: Stdio::null(),
            stdout: Stdio::piped(),
        };
        let child = self.processes.spawn_stage(stage).await?;
        native::give_usual_priority(child.pid());
        Ok(child)
    }

    /// From loading to unloading.
    async fn watch_over(
        &mut self,
        mut child: Child,
        stopped: &mut oneshot::Receiver<()>,
    ) -> Vec<Finding> {
        let (_, text, errors) = child.pipes();
        let mut said = Said::listen(errors);
        self.stats.started_mono_ns = self.clock.now_ns();
        let start_ns = self.stats.started_mono_ns;
        let printed = Arc::new(Mutex::new(PrintedReader::default()));
        let clock = Arc::clone(&self.clock);
        let mut reader = tokio::spawn(read(text, clock, start_ns, Arc::clone(&printed)));
        let mut looks = LOAD.as_millis() / LOOK.as_millis();
        let mut code = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = &mut *stopped => break,
            }
            let status = child.ended_within(Duration::from_millis(1)).await;
            looks = looks.saturating_sub(1);
            self.look(&child, status, start_ns, looks == 0);
            if let Some(status) = status {
                code = status.code();
                // A script may say itself when it is done.
                let _ = (&mut *stopped).await;
                break;
            }
        }
        child.interrupt();
        if child.pid() != 0 {
            code = child.ended_within(END).await.and_then(|s| s.code());
        }
        child.kill().await;
        self.stats.stopped_mono_ns = self.clock.now_ns();
        // What the script has started may hold the pipe.
        if tokio::time::timeout(REST, &mut reader).await.is_err() {
            reader.abort();
        }
        let at_ms = self.stats.stopped_mono_ns.saturating_sub(start_ns) / 1_000_000;
        let (pieces, dropped) = std::mem::take(&mut *lock(&printed)).end(at_ms);
        let ending = Ending {
            code,
            report: ReportEnd::NotKnown,
            samples: pieces.len() as u64,
        };
        let (_, mut findings) = conclude(&ending, diagnose(&said.text().await));
        self.stats.printed = pieces;
        if dropped > 0 {
            let said = format!("{dropped} bytes beyond the {PRINTED_BYTES_MAX} that are kept");
            findings.push(Finding::new(FindingCode::StapOutputCut, said));
        }
        findings.extend(self.unload().await);
        findings
    }

    /// Tells how it goes: whether it is loaded, what it uses, whether it has ended, or should have been loaded by now.
    fn look(&mut self, child: &Child, status: Option<ExitStatus>, start_ns: u64, is_late: bool) {
        let is_loaded = tool::loaded().iter().any(|(name, _)| *name == self.name);
        if child.pid() != 0 {
            self.stats.own_cpu_ns = self.stats.own_cpu_ns.max(native::cpu_ns(child.pid()));
        }
        let mut told = lock(&self.told);
        told.children_cpu_ns = self.stats.own_cpu_ns;
        if is_loaded || status.is_some() {
            told.started_ns.get_or_insert(start_ns);
        }
        if status.is_some_and(|s| !s.success()) {
            told.ended = failed("SystemTap ended before its time").pop();
        } else if is_late && told.started_ns.is_none() {
            told.ended = failed("the module was not loaded in time").pop();
        }
    }

    /// Unloads what is still there: staprun was killed.
    async fn unload(&self) -> Option<Finding> {
        if !tool::loaded().iter().any(|(name, _)| *name == self.name) {
            return None;
        }
        let (staprun, name) = (self.staprun.clone(), self.name.clone());
        let unloaded = tokio::task::spawn_blocking(move || tool::unload(&staprun, &name)).await;
        let how = match unloaded.unwrap_or_else(|e| Err(e.to_string())) {
            Ok(()) => "it was unloaded".to_owned(),
            Err(why) => format!("it could not be unloaded: {why}"),
        };
        let said = format!("the reader of module {} was killed, and {how}", self.name);
        Some(Finding::new(FindingCode::StapModuleLeft, said))
    }
}

async fn read(
    text: Option<ChildStdout>,
    clock: Clock,
    start_ns: u64,
    printed: Arc<Mutex<PrintedReader>>,
) {
    let Some(mut text) = text else { return };
    let mut bytes = vec![0; STEP_BYTES];
    while let Ok(length) = text.read(&mut bytes).await
        && length > 0
    {
        let at_ms = clock.now_ns().saturating_sub(start_ns) / 1_000_000;
        lock(&printed).feed(&bytes[..length], at_ms);
    }
}

impl Engine for ScriptEngine {
    fn arm<'a>(
        &'a mut self,
        order: &'a CaptureOrder,
    ) -> BoxFuture<'a, Result<Vec<Finding>, Vec<Finding>>> {
        Box::pin(async move {
            let (ready, findings) = self.ready(order).await?;
            self.task
                .run(|started, stopped| ready.run(started, stopped));
            Ok(findings)
        })
    }

    fn start(&mut self, start_mono_ns: u64) {
        self.task.start(start_mono_ns);
    }

    fn poll(&mut self, now_ns: u64) -> Poll {
        self.task.poll(now_ns)
    }

    fn stop(&mut self, _now_ns: u64) -> BoxFuture<'_, Stopped> {
        Box::pin(self.task.stop())
    }
}
