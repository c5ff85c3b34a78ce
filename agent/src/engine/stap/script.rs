//! A script of the user's, by SystemTap: expanded, found built or built when it is armed, loaded at the start.
//!
//! In: an order with a script that the host's policy names by its hash. Out: the stacks that the script printed, in the
//! recorder, and the rest of what it printed as text. Never: guru mode;
//! an option of the order's; a value that was not checked; a module that outlives the capture.
//!
//! A script begins when it is loaded, so that the hosts of a run begin as far apart as loading takes (0.5 to 2 s).

use super::build::{self, Builder};
use super::capture::failed;
use super::command::{self, BuildScript};
use super::diagnose::{Ending, ReportEnd, conclude, diagnose};
use super::last;
use super::module::{self, require_closed};
use super::recover;
use super::run::{END, LOAD, Said};
use super::script_bind::{Bound, bind, find};
use super::script_loading::Loading;
use super::script_module::{FoundModule, WantedScript};
use super::script_stacks::ScriptOutput;
use super::tool::{self, Turn};
use crate::clock::Clock;
use crate::engine::task::{CaptureTask, Told, lock};
use crate::engine::{BoxFuture, Engine, Poll, SharedRecorder, Stopped, native as native_engine};
use crate::process::{Child, Processes, Stage};
use crate::stapxx::{self, Bindings, Expansion, check_value};
use model::coverage::CaptureStats;
use model::profile::{Process, Series};
use model::script::PRINTED_BYTES_MAX;
use model::{CaptureOrder, Finding, FindingCode};
use native::TargetWatch;
use std::ffi::OsString;
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
    recorder: SharedRecorder,
    processes: Arc<Processes>,
    clock: Clock,
    runtime: Option<PathBuf>,
    task: CaptureTask,
}

/// A module that is ready to be loaded.
struct Ready {
    processes: Arc<Processes>,
    clock: Clock,
    told: Arc<Mutex<Told>>,
    staprun: PathBuf,
    module: FoundModule,
    /// `-x`: the one process that `target()` is.
    target: Option<u32>,
    stats: CaptureStats,
    output: Arc<Mutex<ScriptOutput>>,
    loading: Loading,
    _turn: Turn,
}

impl ScriptEngine {
    /// An engine that has run nothing. `runtime` is what the policy names in place of SystemTap's own.
    #[must_use]
    pub fn new(
        recorder: SharedRecorder,
        processes: Arc<Processes>,
        clock: Clock,
        runtime: Option<PathBuf>,
    ) -> Self {
        Self {
            recorder,
            processes,
            clock,
            runtime,
            task: CaptureTask::default(),
        }
    }

    /// What builds on this machine. Blocks for some milliseconds.
    fn builder(&self) -> Result<Builder, Finding> {
        if let Some(runtime) = &self.runtime {
            require_closed(runtime).map_err(|e| {
                let said = format!("stap_runtime {}: {e}", runtime.display());
                Finding::new(FindingCode::PolicyUnsafe, said)
            })?;
        }
        let (kernel, _) = tool::kernel();
        let (stap, (major, minor)) = tool::translator()?;
        if !tool::has_headers(&kernel) {
            let said = format!("there are no headers of {kernel} here");
            return Err(Finding::new(FindingCode::StapKernelFiles, said));
        }
        Ok(Builder {
            stap,
            version: format!("{major}.{minor}"),
            kernel: kernel.into(),
            runtime: self.runtime.clone(),
            folder: PathBuf::from(module::FOLDER),
        })
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
        let staprun = tool::find("staprun").map_err(|f| vec![f])?;
        if let Some(finding) = tool::lockdown() {
            return Err(vec![finding]);
        }
        let builder = match self.builder() {
            Err(finding) if finding.code == FindingCode::PolicyUnsafe => return Err(vec![finding]),
            builder => builder,
        };
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
        let (pids, processes) = (found.pids.clone(), found.processes.clone());
        let wanted = WantedScript {
            script: script.clone(),
            bindings: found.bindings.clone(),
            pids: pids.clone(),
            kernel: tool::kernel(),
        };
        let Bound {
            target,
            bindings,
            mut findings,
        } = bind(script, found)?;
        let done = stapxx::expand_script(script, &bindings).map_err(|f| vec![f])?;
        let mistakes = done.notices.iter().filter(|notice| notice.is_mistake());
        let mistakes: Vec<String> = mistakes.map(ToString::to_string).collect();
        if !mistakes.is_empty() {
            let said = mistakes.join("; ");
            findings.push(Finding::new(FindingCode::ScriptSuspicious, said));
        }
        let reason = match &builder {
            Ok(_) => String::new(),
            Err(finding) => finding.evidence.clone(),
        };
        let found = tokio::task::spawn_blocking(move || {
            let folders = tool::folders(&wanted.kernel.0);
            wanted.find(&folders, &reason)
        });
        let found = found.await.map_err(|e| failed(&e.to_string()))?;
        let (module, more) = match (found, builder) {
            (Ok(found), _) => {
                let more = found.told_of();
                (found, more)
            }
            (Err(_), Ok(builder)) => self.build(&builder, &bindings, &done).await?,
            (Err(finding), Err(_)) => return Err(vec![finding]),
        };
        findings.extend(more);
        let mode = format!("script {}", script.file);
        let series = Series {
            host: order.host.to_string(),
            process: match &processes[..] {
                [process] => process.clone(),
                _ => Process::default(),
            },
            engine: "stap".to_owned(),
            mode: mode.clone(),
            ..Series::default()
        };
        let (recorder, now_ns) = (Arc::clone(&self.recorder), self.clock.now_ns());
        let (scale, has_stacks) = (script.stack_unit.scale(), script.takes_stacks());
        let processes = u32::try_from(pids.len()).unwrap_or(u32::MAX);
        let output = tokio::task::spawn_blocking(move || {
            ScriptOutput::new(recorder, series, scale, has_stacks, &pids, now_ns)
        });
        let output = output.await.map_err(|e| failed(&e.to_string()))?;
        let stats = CaptureStats {
            mode,
            processes,
            ..CaptureStats::default()
        };
        let ready = Ready {
            processes: Arc::clone(&self.processes),
            clock: Arc::clone(&self.clock),
            told: Arc::clone(&self.task.told),
            staprun,
            target,
            module,
            stats,
            output: Arc::new(Mutex::new(output)),
            loading: Loading::default(),
            _turn: turn,
        };
        Ok((ready, findings))
    }

    /// A module for this run alone: its processes are part of its text.
    async fn build(
        &self,
        builder: &Builder,
        bindings: &Bindings,
        script: &Expansion,
    ) -> Result<(FoundModule, Vec<Finding>), Vec<Finding>> {
        let images = bindings.exec_path.iter().chain(&bindings.libraries);
        let images: Vec<String> = images
            .filter(|path| command::unwindable(path).is_ok())
            .cloned()
            .collect();
        let mut parts = vec![&*script.script.text, builder.version.as_bytes()];
        parts.extend(script.modules.values().map(|module| &*module.text));
        let name = module::name_of(&parts);
        let asked = BuildScript {
            stap: &builder.stap,
            name: &name,
            kernel: &builder.kernel,
            runtime: builder.runtime.as_deref(),
            images: &images,
            script,
        };
        let built = build::build_script(&self.processes, &builder.folder, &asked).await;
        let (file, findings) = built?;
        let module = FoundModule {
            name,
            file,
            is_kept: false,
            parameters: Vec::new(),
            uncovered: Vec::new(),
        };
        Ok((module, findings))
    }
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
        if !self.module.is_kept {
            let _ = std::fs::remove_file(&self.module.file);
        }
        Stopped {
            stats: self.stats,
            findings,
        }
    }

    async fn load(&self) -> std::io::Result<Child> {
        self.processes
            .guard_module(&self.staprun, &self.module.name)
            .await?;
        let module = &self.module;
        let argv = command::load_for(
            &self.staprun,
            &module.file,
            1,
            self.target,
            &module.parameters,
        );
        self.start(&argv).await
    }

    async fn start(&self, argv: &[OsString]) -> std::io::Result<Child> {
        let stage = Stage {
            argv,
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
        let (clock, output) = (Arc::clone(&self.clock), Arc::clone(&self.output));
        let mut reader = tokio::spawn(read(text, clock, start_ns, output));
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
                // A script may say itself when it is done; the session ends it then.
                let _ = (&mut *stopped).await;
                break;
            }
        }
        child.interrupt();
        let mut ends = true;
        if child.pid() != 0 {
            let status = child.ended_within(END).await;
            ends = status.is_some();
            code = status.and_then(|s| s.code());
        }
        child.kill().await;
        self.stats.stopped_mono_ns = self.clock.now_ns();
        // What the script has started may hold the pipe.
        if tokio::time::timeout(REST, &mut reader).await.is_err() {
            reader.abort();
        }
        let mut text = said.text().await;
        let left = self.recover(ends, start_ns, &mut text).await;
        let at_ms = self.clock.now_ns().saturating_sub(start_ns) / 1_000_000;
        let (pieces, dropped) = lock(&self.output).end(at_ms);
        let ending = Ending {
            code,
            report: ReportEnd::NotKnown,
            // It is not known how many there were, so no ratio of what was skipped is told.
            samples: 0,
        };
        let (_, mut findings) = conclude(&ending, diagnose(&text));
        findings.extend(left);
        self.stats.printed = pieces;
        if dropped > 0 {
            let said = format!("{dropped} bytes beyond the {PRINTED_BYTES_MAX} that are kept");
            findings.push(Finding::new(FindingCode::StapOutputCut, said));
        }
        findings
    }

    /// Tells how it goes: whether it is loaded, what it uses, whether it has ended, or should have been loaded by now.
    fn look(&mut self, child: &Child, status: Option<ExitStatus>, start_ns: u64, is_late: bool) {
        let is_loaded = tool::is_loaded(&self.module.name);
        if child.pid() != 0 {
            self.stats.own_cpu_ns = self.stats.own_cpu_ns.max(native::cpu_ns(child.pid()));
        }
        let now_ns = self.clock.now_ns();
        let used_ns = self.loading.used(is_loaded, self.stats.own_cpu_ns, now_ns);
        let mut told = lock(&self.told);
        told.children_cpu_ns = used_ns;
        if is_loaded || status.is_some() {
            told.started_ns.get_or_insert(start_ns);
        }
        told.done = status.is_some_and(|s| s.success());
        if status.is_some_and(|s| !s.success()) {
            told.ended = failed("SystemTap ended before its time").pop();
        } else if is_late && told.started_ns.is_none() {
            told.ended = failed("the module was not loaded in time").pop();
        }
    }

    /// Until a reader has read more than so many bytes, or there is nothing to read.
    async fn more_than(&self, bytes: u64) {
        let looks = last::COMES_AGAIN.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if lock(&self.output).taken_bytes() > bytes {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is left of a module whose reader was killed: the rest of its output, by another reader; then it is unloaded. At once
    /// where its reader does not end (`ends`).
    async fn recover(&self, ends: bool, start_ns: u64, said: &mut String) -> Option<Finding> {
        let name = &self.module.name;
        if !tool::is_loaded(name) {
            return None;
        }
        if !ends {
            return Some(recover::unloaded(&self.staprun, name, recover::DID_NOT_END).await);
        }
        let before = lock(&self.output).taken_bytes();
        let attached = self.start(&command::attach(&self.staprun, name)).await;
        if let Err(e) = &attached {
            said.push_str(&format!("\nstaprun -A: {e}\n"));
        }
        if let Ok(mut child) = attached {
            let (_, text, errors) = child.pipes();
            let mut more = Said::listen(errors);
            let (clock, output) = (Arc::clone(&self.clock), Arc::clone(&self.output));
            lock(&output).next_reader();
            let mut reader = tokio::spawn(read(text, clock, start_ns, output));
            recover::end(child, name, self.more_than(before)).await;
            if tokio::time::timeout(REST, &mut reader).await.is_err() {
                reader.abort();
            }
            said.push('\n');
            said.push_str(&more.text().await);
        }
        let bytes = lock(&self.output).taken_bytes().saturating_sub(before);
        let why = format!("was killed; {bytes} bytes were recovered");
        Some(recover::unloaded(&self.staprun, name, &why).await)
    }
}

async fn read(
    text: Option<ChildStdout>,
    clock: Clock,
    start_ns: u64,
    output: Arc<Mutex<ScriptOutput>>,
) {
    let Some(mut text) = text else { return };
    let mut bytes = vec![0; STEP_BYTES];
    while let Ok(length) = text.read(&mut bytes).await
        && length > 0
    {
        let at_ms = clock.now_ns().saturating_sub(start_ns) / 1_000_000;
        lock(&output).feed(&bytes[..length], at_ms);
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
